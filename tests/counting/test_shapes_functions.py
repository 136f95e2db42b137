"""What shapes foretell of functions, recurrent layers, attention and optimisers is what a CPU gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

r = torch.rand
X = r(3, 4, 5)
SQUARES = r(3, 4, 4) + 4 * torch.eye(4)
SQUARE = SQUARES[0].clone()
LOGITS, TARGETS = r(4, 6), torch.zeros(4, dtype=torch.long)
COMPLEX = torch.complex(r(3, 4), r(3, 4))
ROWS = torch.tensor([0, 1])
QUERY = r(1, 2, 5, 8)
LAST = r(2, 4, 3, 3).to(memory_format=torch.channels_last)

# Each is called without and with gradients, and then backward; it may write what it makes itself.
FUNCTIONS: dict[str, Callable[[], Any]] = {
    "index, rows": lambda: X[ROWS],
    "index, after": lambda: X[:, :, ROWS],
    "index, between": lambda: X[ROWS, :, ROWS],
    "index, new axis": lambda: X[:, None, ROWS],
    "index, step": lambda: X[:, 1::2, -1],
    "index_put": lambda: X.clone().index_put((ROWS,), r(2, 4, 5)),
    "index_put, mask": lambda: masked(X.clone()),
    "index_select": lambda: X.index_select(1, ROWS),
    "index_add": lambda: X.index_add(1, ROWS, X[:, :2]),
    "gather": lambda: X.gather(1, torch.zeros(3, 1, 5, dtype=torch.long)),
    "scatter": lambda: X.scatter(1, torch.zeros(3, 1, 5, dtype=torch.long), 1.0),
    "scatter_add": lambda: X.scatter_add(1, torch.zeros(3, 4, 5, dtype=torch.long), X),
    "take_along_dim": lambda: X.take_along_dim(torch.zeros(3, 1, 5, dtype=torch.long), 1),
    "masked_fill": lambda: X.masked_fill(X > 0.5, 1.0),
    "where": lambda: torch.where(X > 0.5, X, 0.0),
    "where, broadcast": lambda: torch.where(X[:1] > 0.5, X, X[..., :1]),
    "sort": lambda: X.sort(1),
    "sort, transposed": lambda: X.transpose(1, 2).sort(),
    "argsort": lambda: X.argsort(-1, descending=True),
    "topk": lambda: X.topk(2),
    "kthvalue": lambda: X.kthvalue(2),
    "median": lambda: X.median(1),
    "mode": lambda: X.mode(1),
    "max": lambda: X.max(1),
    "amax": lambda: X.amax((0, 2), keepdim=True),
    "argmax": lambda: X.argmax(1),
    "cumsum": lambda: X.cumsum(1),
    "cummax": lambda: X.cummax(1),
    "quantile": lambda: torch.quantile(X, 0.5, 1),
    "searchsorted": lambda: torch.searchsorted(r(5), r(3)),
    "bucketize": lambda: torch.bucketize(X, torch.tensor([0.2, 0.6])),
    "sum, mean, var, std": lambda: (X.sum(0), X.mean((0, 1)), X.var(1), X.std()),
    "prod, norm, logsumexp": lambda: (X.prod(1), X.norm(dim=1), torch.logsumexp(X, 1)),
    "any, all, count": lambda: ((X > 0).any(1), (X > 0).all(), torch.count_nonzero(X, 1)),
    "cat, stack": lambda: (torch.cat([X, X], 1), torch.stack([X, X], 2)),
    "cat, channels last": lambda: torch.cat([LAST, LAST], 1),
    "cat, mixed": lambda: torch.cat([X, X.half()], 1),
    "split, chunk, unbind": lambda: (X.split([1, 3], 1), X.chunk(2), X.unbind()),
    "roll, flip, rot90": lambda: (X.roll((1, 2), (0, 1)), X.flip(0), X.rot90()),
    "repeat": lambda: (X.repeat(2, 1, 1), X.repeat_interleave(2, 1), X.tile(2)),
    "expand, unfold": lambda: (X[:1].expand(3, 4, 5), X.unfold(1, 2, 1)),
    "as_strided": lambda: X.as_strided((2, 2), (5, 1), 3),
    "permuted, clone": lambda: X.permute(2, 0, 1).clone(),
    "permuted, contiguous": lambda: X.permute(2, 0, 1).contiguous(),
    "permuted, sum": lambda: X.permute(2, 0, 1) + X.permute(2, 0, 1),
    "permuted, product": lambda: X.permute(2, 0, 1) * r(5, 3, 4),
    "broadcast": lambda: X[:, :1] * X[..., :1] + 1,
    "reshape": lambda: (X.permute(2, 0, 1).reshape(5, 12), X.view(-1), X.flatten(1)),
    "squeeze": lambda: (X[:1].squeeze(0), X.unsqueeze(1), X.movedim(0, 2)),
    "diagonals": lambda: (SQUARES.diagonal(0, 1, 2), torch.diag(SQUARE), torch.diag_embed(X)),
    "triangles": lambda: (SQUARE.tril(), SQUARE.triu(1)),
    "casts": lambda: (X.double(), X.half().float(), X.to(torch.int64), X.view(torch.int32)),
    "cast, permuted": lambda: X.permute(2, 0, 1).double(),
    "complex": lambda: (torch.polar(X, X), torch.view_as_real(COMPLEX), COMPLEX.real, COMPLEX.abs()),
    "fft": lambda: (torch.fft.fft(X), torch.fft.fft2(X), torch.fft.ifft(COMPLEX)),
    "fft, inner axis": lambda: (torch.fft.fft(X, dim=0), torch.fft.rfft(X, dim=1)),
    "fft, real": lambda: (torch.fft.rfft(X), torch.fft.irfft(COMPLEX), torch.fft.rfft2(X)),
    "stft": lambda: torch.stft(r(400), 64, window=torch.ones(64), return_complex=True),
    "istft": lambda: torch.istft(torch.complex(r(33, 9), r(33, 9)), 64, window=torch.ones(64)),
    "svd": lambda: torch.linalg.svd(SQUARES),
    "svd, thin": lambda: torch.linalg.svd(r(3, 6, 4), full_matrices=False),
    "svd, wide": lambda: torch.linalg.svd(r(4, 6), full_matrices=True),
    "svdvals": lambda: torch.linalg.svdvals(SQUARES),
    "qr": lambda: (torch.linalg.qr(SQUARES), torch.linalg.qr(r(6, 4))),
    "eigh": lambda: torch.linalg.eigh(SQUARES @ SQUARES.mT),
    "eigvalsh": lambda: torch.linalg.eigvalsh(SQUARES),
    "cholesky": lambda: torch.linalg.cholesky(SQUARES @ SQUARES.mT),
    "inv": lambda: torch.linalg.inv(SQUARES),
    "solve": lambda: (torch.linalg.solve(SQUARES, X), torch.linalg.solve(SQUARE, r(4))),
    "solve_triangular": lambda: torch.linalg.solve_triangular(SQUARE, r(4, 2), upper=True),
    "det": lambda: (torch.linalg.det(SQUARES), torch.linalg.slogdet(SQUARE)),
    "lu": lambda: torch.linalg.lu(SQUARES),
    "pinv": lambda: torch.linalg.pinv(r(5, 3)),
    "matrix_exp": lambda: torch.linalg.matrix_exp(SQUARE),
    "matrix_power": lambda: torch.matrix_power(SQUARE, 3),
    "norms": lambda: (torch.linalg.norm(SQUARE), torch.linalg.vector_norm(X, dim=1)),
    "products": lambda: (SQUARE @ SQUARE, SQUARES @ X, X @ r(5), torch.outer(r(3), r(4))),
    "addmm": lambda: (torch.addmm(r(4), SQUARE, SQUARE), torch.baddbmm(SQUARES, SQUARES, SQUARES)),
    "einsum": lambda: (torch.einsum("bij,kj->bik", X, r(6, 5)), torch.einsum("bij->b", X)),
    "tensordot, kron": lambda: (torch.tensordot(X, SQUARE[:, :1].expand(4, 5).T, 1), torch.kron(SQUARE, SQUARE)),
    "bilinear": lambda: functional.bilinear(r(5, 2), r(5, 3), r(4, 2, 3)),
    "cdist": lambda: torch.cdist(X, X),
    "embedding": lambda: functional.embedding(torch.tensor([[1, 2]]), r(5, 3), padding_idx=0),
    "one_hot": lambda: functional.one_hot(ROWS, 5),
    "embedding_bag, weighted": lambda: functional.embedding_bag(
        torch.tensor([[1, 2]]), r(5, 3), mode="sum", per_sample_weights=r(1, 2)
    ),
    "pads, channels last": lambda: [
        functional.pad(LAST, (1, 1, 1, 1), mode=how) for how in ("reflect", "replicate", "circular", "constant")
    ],
    "pads, volumes": lambda: [
        functional.pad(r(1, 2, 3, 3, 3), (1,) * 6, mode=how) for how in ("reflect", "replicate", "circular")
    ],
    "grid_sample": lambda: functional.grid_sample(r(1, 2, 4, 4), functional.affine_grid(r(1, 2, 3), (1, 2, 4, 4))),
    "interpolate, antialias": lambda: functional.interpolate(
        r(1, 2, 4, 4), size=(7, 7), mode="bicubic", antialias=True
    ),
    "attention": lambda: functional.scaled_dot_product_attention(QUERY, QUERY, QUERY),
    "attention, causal": lambda: functional.scaled_dot_product_attention(QUERY, QUERY, QUERY, is_causal=True),
    "attention, bias": lambda: functional.scaled_dot_product_attention(
        QUERY, QUERY, QUERY, attn_mask=torch.zeros(5, 5)
    ),
    "attention, mask": lambda: functional.scaled_dot_product_attention(
        QUERY, QUERY, QUERY, attn_mask=torch.ones(5, 5, dtype=torch.bool)
    ),
    "attention, dropout": lambda: functional.scaled_dot_product_attention(QUERY, QUERY, QUERY, dropout_p=0.5),
    "attention, heads inside": lambda: functional.scaled_dot_product_attention(
        *(r(1, 5, 2, 8).transpose(1, 2),) * 3
    ),
    "attention, groups": lambda: functional.scaled_dot_product_attention(
        r(1, 4, 5, 8), QUERY, QUERY, enable_gqa=True
    ),
    "attention, bfloat16": lambda: functional.scaled_dot_product_attention(*(QUERY.bfloat16(),) * 3),
    "attention, cross": lambda: functional.scaled_dot_product_attention(r(1, 2, 3, 8), QUERY, QUERY),
    "attention, flat": lambda: functional.scaled_dot_product_attention(r(5, 8), r(5, 8), r(5, 8)),
    "made": lambda: (torch.arange(5), torch.linspace(0, 1, 5), torch.eye(3), torch.full((2,), 1)),
    "made, like": lambda: (X.new_zeros(3), torch.ones_like(X.mT), torch.empty_like(LAST)),
    "made, random": lambda: (torch.randn(3), torch.randint(5, (3,)), torch.randperm(5)),
    "drawn": lambda: (torch.bernoulli(X), torch.multinomial(SQUARE, 2), torch.normal(X, X)),
    "meshgrid": lambda: torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij"),
    "in place": lambda: r(3, 4).exp_().add_(1).clamp_(0, 1).mul_(r(4)).zero_(),
    "in place, a part": lambda: written(r(3, 4)),
    "in place, copy": lambda: r(3, 4).copy_(r(4)).fill_(2.0),
    "in place, random": lambda: r(3, 4).normal_().uniform_().bernoulli_(),
    "clamp": lambda: (X.clamp(0, 1), X.clamp(min=X[:1]), X.clip(max=0.5)),
    "powers": lambda: (X**2, 2**X, X**X, X.rsqrt(), X.reciprocal()),
    "integers": lambda: (ROWS + 1, ROWS / 2, ROWS // 2, ROWS % 2, ROWS << 1, -ROWS, ROWS > 0),
    "promoted": lambda: (ROWS[:, None, None] + X[:2], X.half() + X[0, 0, 0], X + 1j),
    "comparisons": lambda: (X > 0, X[0] == X[1, :1], (X > 0) & (X < 1), X.isnan(), X.isclose(X)),
    "lerp, addcmul": lambda: (X.lerp(X, 0.5), X.addcmul(X, X), X.addcdiv(X, X + 1)),
    "normalize": lambda: (functional.normalize(X), functional.cosine_similarity(X, X), functional.pairwise_distance(X, X)),
    "glu": lambda: (functional.glu(r(3, 4)), functional.softmax(X, 1), functional.log_softmax(X.mT, 1), functional.softmax(ROWS, 0, dtype=torch.float32)),
    "gumbel": lambda: functional.gumbel_softmax(LOGITS, hard=True),
    "pad": lambda: (functional.pad(X, (1, 2)), functional.pad(X, (-1, 0)), functional.pad(X, (1, 1), mode="circular")),
    "block_diag": lambda: torch.block_diag(SQUARE, SQUARE),
    "histc": lambda: torch.histc(X.detach()),
    "trapezoid, diff": lambda: (torch.trapezoid(X), torch.diff(X)),
    "cross": lambda: torch.linalg.cross(r(4, 3), r(4, 3)),
    "layouts": lambda: (LAST * 2, LAST + LAST, LAST.mean((2, 3)), LAST.flatten(1), LAST[:, :2].relu()),
}  # fmt: skip

LOSSES: dict[str, Callable[[str], Any]] = {
    "cross_entropy": lambda how: functional.cross_entropy(LOGITS, TARGETS, reduction=how),
    "cross_entropy, soft": lambda how: functional.cross_entropy(
        LOGITS, LOGITS.softmax(1), reduction=how
    ),
    "cross_entropy, smooth": lambda how: functional.cross_entropy(
        LOGITS, TARGETS, label_smoothing=0.1, reduction=how
    ),
    "cross_entropy, weights": lambda how: functional.cross_entropy(
        LOGITS, TARGETS, r(6), reduction=how
    ),
    "cross_entropy, images": lambda how: functional.cross_entropy(
        r(2, 4, 3, 3), torch.zeros(2, 3, 3, dtype=torch.long), reduction=how
    ),
    "mse": lambda how: functional.mse_loss(LOGITS, r(4, 6), reduction=how),
    "l1": lambda how: functional.l1_loss(LOGITS, r(4, 6), reduction=how),
    "smooth_l1": lambda how: functional.smooth_l1_loss(LOGITS, r(4, 6), reduction=how),
    "huber": lambda how: functional.huber_loss(LOGITS, r(4, 6), reduction=how),
    "bce": lambda how: functional.binary_cross_entropy(LOGITS.sigmoid(), r(4, 6), reduction=how),
    "bce, logits": lambda how: functional.binary_cross_entropy_with_logits(
        LOGITS, r(4, 6), reduction=how
    ),
    "soft_margin": lambda how: functional.soft_margin_loss(LOGITS, r(4, 6), reduction=how),
    "multi_margin": lambda how: functional.multi_margin_loss(LOGITS, TARGETS, reduction=how),
    "multilabel_margin": lambda how: functional.multilabel_margin_loss(
        LOGITS, torch.zeros(4, 6, dtype=torch.long), reduction=how
    ),
    "margin_ranking": lambda how: functional.margin_ranking_loss(
        r(4), r(4), torch.ones(4), reduction=how
    ),
    "triplet": lambda how: functional.triplet_margin_loss(LOGITS, r(4, 6), r(4, 6), reduction=how),
    "cosine": lambda how: functional.cosine_embedding_loss(
        LOGITS, r(4, 6), torch.ones(4), reduction=how
    ),
    "hinge": lambda how: functional.hinge_embedding_loss(LOGITS, torch.ones(4, 6), reduction=how),
    "poisson": lambda how: functional.poisson_nll_loss(LOGITS, r(4, 6), reduction=how),
    "gaussian": lambda how: functional.gaussian_nll_loss(LOGITS, r(4, 6), r(4, 6), reduction=how),
    "kl_div": lambda how: functional.kl_div(LOGITS, r(4, 6), reduction=how),
}


# What has no answer on shapes alone: why, in short.
REFUSED = {
    "complex": {"aten::_conj"},  # a conjugate view has no spec
    "gaussian": {"aten::_local_scalar_dense"},  # asks whether a variance is negative
    "istft": {"aten::equal"},  # of a small window, whose values a trace knows
    "one_hot": {"aten::_local_scalar_dense"},  # likewise, of indices
    "multi_margin": {"aten::multi_margin_loss_backward"},  # no meta kernel
    "multilabel_margin": {"aten::multilabel_margin_loss_backward"},
}


def masked(x: Tensor) -> Tensor:
    x[x > 0.5] = 0.0
    return x


def written(x: Tensor) -> Tensor:
    x[:, 0].zero_()
    x[1:3] += 1
    x[ROWS, ROWS] = 2.0
    return x


def leaves_in(tree: Any) -> list[Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(tree) if isinstance(t, Tensor)]


def forward_and_backward(function: Callable[[], Any], *, gradients: bool) -> None:
    inputs = (X, SQUARES, SQUARE, LOGITS, COMPLEX, QUERY, LAST)
    for each in inputs:
        each.requires_grad_(gradients)
    try:
        outs = leaves_in(function())
        if gradients:
            sums = [t.abs().sum() for t in outs if t.requires_grad]
            if sums:
                torch.autograd.backward(sums)
    finally:
        for each in inputs:
            each.requires_grad_(False)
            each.grad = None


@pytest.mark.parametrize("gradients", [False, True], ids=["alone", "backward"])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("ignore")
def test_a_function_gives_what_its_shapes_foretell(
    set_beside: Any, name: str, gradients: bool
) -> None:
    """Size, strides, dtype, bytes and aliasing of each operator, forward and backward."""
    with torch.set_grad_enabled(gradients), set_beside() as mode:
        forward_and_backward(FUNCTIONS[name], gradients=gradients)
    assert not mode.wrong, "\n".join(mode.wrong)
    assert mode.refused <= REFUSED.get(name, set())


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.filterwarnings("ignore")
def test_a_loss_gives_what_its_shapes_foretell(set_beside: Any, name: str, reduction: str) -> None:
    """Size, strides, dtype, bytes and aliasing of each operator, forward and backward."""
    with torch.enable_grad(), set_beside() as mode:
        forward_and_backward(lambda: LOSSES[name](reduction), gradients=True)
    assert not mode.wrong, "\n".join(mode.wrong)
    assert mode.refused <= REFUSED.get(name, set())
