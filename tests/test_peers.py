"""Peers: what other counters say, in FLOP, without harm to the model or to one another."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from pytest_nnscale import peers
from pytest_nnscale.peers import Opinion, Peer, opinions

X = torch.ones(2, 3, 8, 8)
CONV = 2 * 2 * 4 * 3 * 9 * 6 * 6  # 2 FLOP x batch x out x in x kernel x positions


def test_peers_that_are_right_agree_on_a_convolution() -> None:
    """Torch's own and ptflops, whose multiply-accumulates are doubled."""
    heard = {each.peer: each for each in opinions(nn.Conv2d(3, 4, 3, bias=False), (X,))}
    assert heard["FlopCounterMode"].flops == CONV
    assert heard["FlopCounterMode"].by_operator == {"aten::convolution": CONV}
    if "ptflops (pytorch)" in heard:
        assert heard["ptflops (pytorch)"].flops == CONV


def test_several_inputs_reach_the_model() -> None:
    """As the positional arguments that they are."""
    heard = {each.peer: each for each in opinions(nn.Bilinear(3, 3, 2), (torch.ones(1, 3),) * 2)}
    assert heard["FlopCounterMode"].error == ""


def test_a_peer_that_fails_is_heard_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, and the next is asked all the same; one that is not installed is not."""

    def fail(model: nn.Module, inputs: object) -> Opinion:
        raise ValueError("not\nthis one")

    def answer(model: nn.Module, inputs: object) -> Opinion:
        return Opinion("good", 1)

    peers_now = (
        Peer("bad", "torch", fail),
        Peer("absent", "nnscale_no_such_package", fail),
        Peer("good", "torch", answer),
    )
    monkeypatch.setattr(peers, "PEERS", peers_now)
    assert opinions(nn.Linear(1, 1), ()) == [
        Opinion("bad", None, error="ValueError: not this one"),
        Opinion("good", 1),
    ]


def test_a_peer_gets_a_copy_of_the_model_and_is_not_heard_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some hang hooks and attributes on a model and leave them there, and many print."""

    def spoil(model: nn.Module, inputs: object) -> Opinion:
        model.spoiled = True
        sys.stdout.write("noise")
        return Opinion("spoiler", 1)

    monkeypatch.setattr(peers, "PEERS", (Peer("spoiler", "torch", spoil),))
    model = nn.Linear(1, 1)
    opinions(model, ())
    assert not hasattr(model, "spoiled")
    assert capsys.readouterr() == ("", "")
