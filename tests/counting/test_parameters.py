"""Parameters that ran are seen, whoever they belong to."""

import torch
from torch import nn

from pytest_nnscale.counting.counter import Counter


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.randn(8, 3))
        self.layer = nn.Linear(8, 8)

    def encode(self, x):
        return self.layer(x) @ self.own


def test_parameter_of_a_model_that_was_not_called_is_elsewhere():
    """model.encode(x) runs a parameter of the model, of which only a layer was called."""
    model = Model()
    with Counter() as counter:
        model.encode(torch.randn(2, 8))
    assert counter.roots == (model.layer,)
    assert [id(p) for p in counter.parameters_elsewhere] == [id(model.own)]


def test_parameter_of_a_called_or_known_model_is_not_elsewhere():
    """What belongs to a root is no stray, also when the root was only named beforehand."""
    model = Model()
    with Counter(roots=[model]) as counter:
        model.encode(torch.randn(2, 8)).sum().backward()
    assert counter.parameters_elsewhere == ()


def test_parameter_that_is_gone_leaves_its_shape():
    """A test body's model is gone by the end of the body; no tensor of it is kept alive."""

    def run():
        Model().half().encode(torch.randn(2, 8, dtype=torch.half))

    with Counter() as counter:
        run()
    (stray,) = counter.parameters_elsewhere
    assert (stray.shape, stray.dtype, stray.device.type) == ((8, 3), torch.half, "meta")
    assert stray.requires_grad


def test_making_or_saving_a_model_is_no_use_of_its_parameters():
    """Initialisation, state_dict, copies of weights and steps of an optimiser run no model."""
    other = Model()
    for parameter in other.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with Counter() as counter:
        made = Model()
        made.load_state_dict(other.state_dict())
        torch.optim.SGD(other.parameters(), 0.1).step()
    assert counter.parameters_elsewhere == ()


def test_module_hidden_in_a_list_is_a_root():
    """What is called and registered nowhere is a model of its own, if it keeps anything."""

    class Hiding(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)
            self.hidden = [nn.Sequential(nn.Linear(8, 8), nn.ReLU())]

        def forward(self, x):
            return nn.Softmax(-1)(self.hidden[0](self.layer(x)))

    model = Hiding()
    with Counter() as counter:
        model(torch.randn(2, 8))
    assert counter.roots == (model, model.hidden[0])
    assert counter.parameters_elsewhere == ()
