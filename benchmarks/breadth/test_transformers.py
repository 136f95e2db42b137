"""transformers' families in small, for real on the CPU, with every attention implementation."""

import pytest

import pytest_nnscale

from .families import FAMILIES
from .family import BATCH, INNER, LAYERS, LENGTH, WIDTH, WORDS

IMPLEMENTATIONS = [
    pytest.param(name, attention, id=f"{name}-{attention}")
    for name, family in FAMILIES.items()
    for attention in family.attentions
]
TOKENS = BATCH * LENGTH
# Scores, and values weighted by them, of all heads of all layers; a causal mask spares nothing.
ATTENTION = LAYERS * 2 * 2 * BATCH * LENGTH * LENGTH * WIDTH
HEAD = 2 * TOKENS * WIDTH * WORDS
EXPERTS = 4


def llama(experts):
    """Queries and outputs are as wide as the model, keys and values half; experts of 3 matrices."""
    layer = 2 * WIDTH * WIDTH + 2 * WIDTH * WIDTH // 2 + experts * 3 * WIDTH * INNER
    return LAYERS * 2 * TOKENS * layer + ATTENTION + HEAD


# FLOPs of the families that have an easy closed form; 1 MAC = 2 FLOP.
FORMS = {
    # Four projections, two layers of the inner width, and the pooler of the first tokens.
    "bert": LAYERS * 2 * TOKENS * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)
    + ATTENTION
    + 2 * BATCH * WIDTH * WIDTH,
    # The same, with four times the width inside.
    "gpt2": LAYERS * 2 * TOKENS * (4 * WIDTH * WIDTH + 2 * WIDTH * 4 * WIDTH) + ATTENTION + HEAD,
    "llama": llama(experts=1),
    # Each token meets the router and two of the experts.
    "mixtral": llama(experts=2) + LAYERS * 2 * TOKENS * WIDTH * EXPERTS,
}


@pytest.mark.parametrize(("name", "attention"), IMPLEMENTATIONS)
def test_family(name, attention):
    """A family of transformers is counted whole: no operator without a formula, no parameter lost."""
    family = FAMILIES[name]
    model = family.build(attn_implementation=attention)
    profile = pytest_nnscale.profile(model, kwargs=family.inputs)
    assert profile.uncounted == ()
    assert profile.flops > 0
    assert profile.params == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", FORMS)
def test_closed_form(name, attention):
    """A family's FLOPs are those of its closed form, whichever way attention is computed."""
    family = FAMILIES[name]
    model = family.build(attn_implementation=attention)
    assert pytest_nnscale.profile(model, kwargs=family.inputs).flops == FORMS[name]


@pytest.mark.parametrize("experts", ["eager", "batched_mm", "grouped_mm"])
def test_experts(experts):
    """Mixtral's FLOPs are those of the experts that the router chose, however they are computed."""
    family = FAMILIES["mixtral"]
    model = family.build(experts_implementation=experts)
    assert pytest_nnscale.profile(model, kwargs=family.inputs).flops == FORMS["mixtral"]
