"""A counter runs the block for real, sees all of it, and can undo what it did."""

import json
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn.modules import module as hooks

from pytest_nnscale.counting.counter import Count, Counter
from pytest_nnscale.errors import CannotMeasure


def counted(run) -> Count:
    with Counter() as counter:
        run()
    return counter.count()


def test_block_without_operators_counts_nothing():
    """Zero operators tell that nothing ran."""
    count = counted(lambda: None)
    assert (count.operators, count.flops, count.kernels, count.memory_bytes) == (0, 0, 0, 0)
    assert not count.backward


def test_two_counts_in_a_row_are_equal():
    """Counting changes nothing that a second count would see."""
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), torch.randn(2, 3, 8, 8)
    counts = []
    for _ in range(2):
        counter = Counter(preserve=True)
        with counter:
            model(x).sum().backward()
        counter.restore()
        counts.append(counter.count())
    assert counts[0] == counts[1]


def test_kernels_are_operators_that_compute():
    """Views, detaches and empty allocations are no kernels; products, copies and zeros are."""

    def run():
        x = torch.zeros(4, 4)
        (x.t().reshape(2, 8).view(4, 4) @ x).detach().add_(1)
        torch.empty(3)

    assert counted(run).kernels == 4  # zeros, the copy of reshape, mm, add_


def test_forward_numbers_of_training_are_those_of_the_forward_alone():
    """What `backward()` starts from is no part of the forward."""
    model, x = nn.Linear(4, 2), torch.randn(3, 4)
    alone = counted(lambda: model(x).sum())
    both = counted(lambda: model(x).sum().backward())
    assert both.forward_kernels == alone.kernels
    assert both.forward_flops == alone.flops
    assert both.forward_memory_bytes == alone.memory_bytes
    assert both.kernels > alone.kernels


def test_scripted_module_is_seen():
    """TorchScript dispatches too; its hidden modules count as their root."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.script(nn.Sequential(nn.Linear(4, 2), nn.ReLU()))
    count = counted(lambda: model(torch.ones(3, 4)))
    assert count.flops == 2 * 3 * 4 * 2
    assert count.modules[0].type == "Sequential"


def test_compiled_module_is_counted_from_its_eager_self():
    """A full-graph compiled model neither raises nor recompiles under a counter, nor warns."""
    compilations = []

    def backend(graph, _inputs):
        compilations.append(graph)
        return graph.forward

    inner = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    model = torch.compile(inner, backend=backend, fullgraph=True)
    x = torch.ones(3, 4)
    model(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Counter() as counter:
            model(x)
    assert counter.count().flops == 2 * 3 * 4 * 2
    assert counter.roots == (inner,)
    assert [row.path for row in counter.count().modules] == ["", "0", "1"]
    model(x)
    assert len(compilations) == 1


def test_compiled_function_is_counted_from_its_eager_self():
    """A full-graph compiled function counts as the code it was compiled from."""
    multiply = torch.compile(lambda x: x @ x, backend="eager", fullgraph=True)
    assert counted(lambda: multiply(torch.ones(4, 4))).flops == 2 * 64


def test_flex_attention_and_cond_are_seen_through():
    """Higher-order operators with a formula or a branch count; they run either way."""
    from torch.nn.attention.flex_attention import flex_attention

    query = torch.randn(1, 2, 16, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count = counted(lambda: flex_attention(query, query, query))
    assert (count.flops, count.uncounted) == (2 * 2 * 2 * 16 * 16 * 8, ())
    x = torch.ones(4, 4)
    count = counted(lambda: torch.cond(x.sum() > 0, lambda x: x @ x, lambda x: x + 1, (x,)))
    assert (count.flops, count.uncounted) == (2 * 64, ())


def test_wrapper_tensors_count_as_what_their_parts_do():
    """A tensor subclass that takes itself apart is counted by the operators on its parts."""
    from torch.testing._internal.two_tensor import TwoTensor

    x = TwoTensor(torch.ones(4, 4), torch.ones(4, 4))
    assert counted(lambda: x @ x).flops == 2 * (2 * 64)


def test_fake_tensors_count_like_real_ones():
    """Under FakeTensorMode nothing is computed, and the count is the same."""
    from torch._subclasses import FakeTensorMode

    model, x = nn.Linear(4, 4), torch.randn(2, 4)
    real = counted(lambda: model(x))
    with FakeTensorMode():
        model, x = nn.Linear(4, 4), torch.randn(2, 4)
        fake = counted(lambda: model(x))
    assert (fake.flops, fake.kernels) == (real.flops, real.kernels)
    assert fake.memory_bytes == real.memory_bytes


def test_functorch_transforms_are_seen_through():
    """vmap and grad dispatch what they batch and differentiate."""
    count = counted(lambda: torch.func.vmap(lambda a: a @ a)(torch.randn(3, 4, 4)))
    assert (count.flops, count.uncounted) == (3 * 2 * 64, ())


def test_nested_counters_count_the_same():
    """An inner counter hides nothing from an outer one."""
    model, x = nn.Linear(4, 4), torch.randn(2, 4)
    with Counter() as outer, Counter() as inner:
        model(x)
    assert outer.count() == inner.count()


def test_autocast_counts_the_same_products():
    """Mixed precision adds casts, not contractions."""

    def run():
        with torch.autocast("cpu", torch.bfloat16):
            nn.Linear(4, 2)(torch.ones(3, 4))

    assert counted(run).flops == 2 * 3 * 4 * 2


def test_thread_that_uses_torch_is_reported():
    """What runs in another thread is not counted, and its name is told."""
    ready = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="old") as pool:
        pool.submit(ready.set).result()

        def run():
            worker = threading.Thread(target=lambda: torch.ones(2) + 1, name="worker")
            worker.start()
            worker.join()
            pool.submit(nn.Linear(2, 2), torch.ones(1, 2)).result()

        count = counted(run)
    assert count.threads == ("worker", "old_0")
    assert count.flops == 0


def test_thread_without_torch_is_none_of_our_business():
    """A progress bar's thread does not spoil a count; nor is Thread.start left patched."""
    start = threading.Thread.start

    def run():
        worker = threading.Thread(target=lambda: None)
        worker.start()
        worker.join()

    assert counted(run).threads == ()
    assert threading.Thread.start is start


def test_nothing_stays_behind_after_a_block_that_raises():
    """Hooks, mode, stance and threads are as before, and what was seen is still there."""
    before = dict(hooks._global_forward_hooks), dict(hooks._global_forward_pre_hooks)
    counter = Counter()

    def run():
        with counter:
            nn.Linear(2, 2)(torch.ones(1, 2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert (dict(hooks._global_forward_hooks), dict(hooks._global_forward_pre_hooks)) == before
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None
    assert counter.count().flops == 8
    compiled = torch.compile(lambda x: x + 1, backend="eager", fullgraph=True)
    assert compiled(torch.ones(1)).item() == 2


def test_counter_keeps_no_tensor_of_the_block_alive():
    """A count is plain data, and temporaries die when the block drops them."""
    with Counter() as counter:
        alive = weakref.ref(torch.ones(3) + 1)
    assert alive() is None
    assert json.loads(json.dumps(counter.count()._asdict()))["kernels"] == 2


def test_counter_is_usable_once():
    """Counting twice with one counter would add two blocks up."""
    counter = Counter()
    with pytest.raises(CannotMeasure):
        counter.count()
    with counter:
        pass
    with pytest.raises(RuntimeError, match="one block"):
        counter.__enter__()


def test_devices_are_told():
    """The types of devices that took part, in order."""
    assert counted(lambda: (torch.ones(1), torch.ones(1, device="meta"))).devices == ("cpu", "meta")


def test_restore_undoes_an_optimiser_step_and_running_statistics():
    """Weights, gradients, statistics and version counters are as before the block."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(torch.randn(5, 4)).sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [(p.grad, p.grad.clone()) for p in model.parameters()]
    versions = [p._version for p in (*model.parameters(), *model.buffers())]
    draw = torch.get_rng_state()
    counter = Counter(preserve=True)
    with counter:
        model(torch.randn(5, 4)).pow(2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not torch.equal(model[0].weight, state["0.weight"])
    counter.restore()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    for parameter, (gradient, value) in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is gradient
        assert torch.equal(gradient, value)
    assert [p._version for p in (*model.parameters(), *model.buffers())] == versions
    assert torch.equal(torch.get_rng_state(), draw)


def test_restore_undoes_writes_to_loose_tensors():
    """Tensors of no module, written through views or reshaped in place, come back too."""
    plain, viewed, leaf = torch.ones(4), torch.ones(4), torch.ones(2, requires_grad=True)
    view = viewed[:2]
    counter = Counter(preserve=True)
    with counter:
        plain.add_(1).unsqueeze_(0)
        view.zero_()
        torch._foreach_mul_([plain], 3)
        (leaf * 2).sum().backward()
    assert any(tensor is plain for tensor in counter.written)
    counter.restore()
    assert torch.equal(plain, torch.ones(4))
    assert torch.equal(viewed, torch.ones(4))
    assert leaf.grad is None
    assert plain._version == 0


def test_written_names_only_what_was_there_before():
    """Temporaries written in place are nobody's business."""
    existing = torch.ones(2)
    with Counter() as counter:
        torch.zeros(2).add_(1)
        existing.add_(1)
    assert len(counter.written) == 1
    assert counter.written[0] is existing


def test_work_is_told_by_operator():
    """Those that did any, most first; together they are the whole."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2, bias=False))
    count = counted(lambda: model(torch.ones(1, 4)))
    told = [(work.operator, work.calls, work.flops) for work in count.by_operator]
    assert told == [("aten::addmm", 1, 64), ("aten::mm", 1, 32)]
    assert sum(flops for *_, flops in told) == count.flops
