"""The numba kernels and the torch formulas are one function: values to 1e-5, gradients to 1e-4."""

import itertools

import numpy as np
import pytest
import torch
from modules.small_models import DIMS, all_cells, build, counts_of, spec, table

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.likelihoods import formula
from scanpy_scvi.modules.likelihoods.dispersion import LogTheta
from scanpy_scvi.modules.likelihoods.fused import fused_nll
from scanpy_scvi.numerics import negative_binomial, poisson, zero_inflated
from scanpy_scvi.training import seeded

FAMILIES = ("poisson", "nb", "zinb")
KERNELS = {"poisson": poisson, "nb": negative_binomial, "zinb": zero_inflated}


def by_kernel(family, counts, logits, log_library, table, row, h):
    log_theta = None if family == "poisson" else LogTheta(table, row)
    kernel = KERNELS[family].softmax_head
    return fused_nll(kernel, counts, logits, log_library, log_theta, h if family == "zinb" else None)


def by_formula(family, counts, logits, log_library, table, row, h):
    log_mu = formula.log_means(logits, log_library)
    if family == "poisson":
        return formula.poisson_nll(counts, log_mu)
    t = LogTheta(table, row).per_cell()
    return formula.nb_nll(counts, log_mu, t) if family == "nb" else formula.zinb_nll(counts, log_mu, t, h)


def both(family, counts, inputs, row, dtype, weights):
    """Value and gradients by kernel and by formula; the formula in `dtype`."""
    results = []
    for function, kind in ((by_kernel, torch.float32), (by_formula, dtype)):
        leaves = [a.detach().to(kind).requires_grad_() for a in inputs]
        nll = function(family, counts, leaves[0], leaves[1], leaves[2], row, leaves[3])
        nll.backward(weights.to(nll.dtype))
        results.append((nll.detach(), [leaf.grad for leaf in leaves]))
    return results


def random_inputs(n_theta, *, n=29, n_genes=151, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, n_genes))
    log_library = rng.normal(6, 0.7, n)
    log_theta = rng.uniform(-4, 7, (n_theta, n_genes))
    row = np.arange(n) if n_theta == n else rng.integers(0, n_theta, n)
    mu = np.exp(log_library)[:, None] * np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    x = rng.poisson(mu * rng.gamma(0.5, 2.0, mu.shape))
    x[:, 0] += x.sum(1) == 0
    inputs = [
        torch.tensor(a, dtype=torch.float32) for a in (logits, log_library, log_theta, rng.normal(0, 3, (n, n_genes)))
    ]
    return counts_of(x), inputs, torch.from_numpy(row)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_theta", [1, 3, 29])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("equal", [True, False], ids=["equal weights", "unequal weights"])
def test_kernel_equals_formula(family, n_theta, dtype, equal):
    counts, inputs, row = random_inputs(n_theta)
    with seeded(0):
        weights = torch.full((29,), 1 / 29) if equal else torch.randn(29)
    (a, grads), (b, expected) = both(family, counts, inputs, row, dtype, weights)
    assert a.dtype == torch.float32
    torch.testing.assert_close(a.double(), b.double(), rtol=1e-5, atol=0)
    for name, g, e in zip(("logits", "log_library", "log_theta", "zero_logits"), grads, expected, strict=True):
        assert (g is None) == (e is None), name
        if e is not None:
            assert (g - e).abs().max() <= 1e-4 * e.abs().max(), name


def extreme_grid(family):
    """x, mu, theta and h at both ends of what a fit can meet; one entry a row."""
    thetas = [0.0] if family == "poisson" else np.log([1e-4, 1e-2, 1.0, 50.0, 1e4, 1e7])
    logits = [-20.0, -5.0, 0.0, 5.0, 20.0] if family == "zinb" else [0.0]
    mus = np.log([1e-6, 1e-4, 1e-2, 1.0, 5.0, 100.0, 1e4, 1e5])
    return np.array(list(itertools.product([0.0, 1, 5, 100, 1e4], mus, thetas, logits))).T


@pytest.mark.parametrize("family", FAMILIES)
def test_every_entry_of_an_extreme_grid(family):
    """Each entry as a cell with one gene, so that mu is exactly the library: 1e-5 relative or absolute, slopes 1e-4.

    The slope in log mu is (mu - x) / (1 + mu / theta); the rounding of mu in float32 is all that it is allowed on top.
    """
    x, eta, t, h = extreme_grid(family)
    n = len(x)
    inputs = [torch.tensor(a, dtype=torch.float32) for a in (np.zeros((n, 1)), eta, t[:, None], h[:, None])]
    row, weights = torch.arange(n), torch.ones(n)
    (a, grads), (b, expected) = both(family, counts_of(x[:, None]), inputs, row, torch.float64, weights)
    assert torch.isfinite(a).all()
    assert ((a - b).abs() <= 1e-5 * b.abs().clamp_min(1)).all()
    rounding = [torch.from_numpy(np.exp(eta) / (1 + np.exp(eta - t)) if family != "poisson" else np.exp(eta)), 0, 0]
    for g, e, r in zip(grads[1:], expected[1:], rounding, strict=True):  # the gradient of one logit is zero
        if e is not None:
            assert ((g - e).abs() <= 1e-4 * e.abs() + 1e-6 + 2e-7 * r).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cells_of_extreme_entries(family, dtype):
    """Cells whose genes run from mu = 1e-6 to 1e5, each with one count, theta and logit for all."""
    x, eta, t, h = (a.reshape(5, 8, -1).transpose(0, 2, 1).reshape(-1, 8) for a in extreme_grid(family))
    log_library = np.log(np.exp(eta).sum(1))
    inputs = [torch.tensor(a, dtype=torch.float32) for a in (eta, log_library, t, h)]
    n = len(x)
    (a, grads), (b, expected) = both(family, counts_of(x), inputs, torch.arange(n), dtype, torch.ones(n))
    torch.testing.assert_close(a.double(), b.double(), rtol=1e-5, atol=1e-5)
    for g, e in zip(grads, expected, strict=True):
        if e is not None:  # per cell, relative to the largest among its genes
            gap, scale = ((a.abs().reshape(n, -1).max(1).values) for a in (g - e, e))
            # The softmax projects out the sum of slopes, which in float32 leaves its rounding behind.
            projected = 0 if dtype == torch.float64 else 1e-6 * expected[1].abs()
            assert (gap <= 1e-4 * scale + 1e-6 + projected).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_deep_cells_at_their_means(family, dtype):
    """50 genes of 10,000 counts each: 300 nats, the difference of terms a thousand times as large."""
    x = np.random.default_rng(0).poisson(1e4, (6, 50))
    inputs = [np.zeros((6, 50)), np.full(6, np.log(5e5)), np.full((1, 50), np.log(1e7)), np.full((6, 50), -30.0)]
    inputs = [torch.tensor(a, dtype=torch.float32) for a in inputs]
    (a, _), (b, _) = both(family, counts_of(x), inputs, torch.zeros(6, dtype=torch.long), dtype, torch.ones(6))
    torch.testing.assert_close(a.double(), b.double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_stored_zeros_are_zeros(family):
    counts, inputs, row = random_inputs(1, n=4, n_genes=9)
    dense = np.zeros((4, 9))
    dense[counts.cell_of_entry(), counts.indices] = counts.data
    padded = counts_of(dense, store_zeros=True)
    assert len(padded.data) == 36 > len(counts.data)
    logits, log_library, t, h = inputs
    for function in (by_kernel, by_formula):
        a = function(family, counts, logits, log_library, t, row, h)
        torch.testing.assert_close(function(family, padded, logits, log_library, t, row, h), a, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-label", "gene-cell"])
def test_parts_choose_the_kernel_in_float32_and_the_formula_in_float64(likelihood, dispersion):
    """The whole part, with its heads and the rows of theta; gradients of all its weights."""
    part = Part(likelihood, {} if likelihood == "poisson" else {"dispersion": dispersion})
    model, cells = build(spec(likelihood=part)), all_cells(table())
    single, double = model.likelihood, build(spec(likelihood=part)).likelihood.double()
    with torch.no_grad():
        output = model.decode(torch.randn(37, 3), cells)
    weights = torch.rand(37)
    nlls = []
    for side, kind in ((single, torch.float32), (double, torch.float64)):
        nll = side.nll(type(output)(*(a.to(kind) for a in output)), cells.log_total.to(kind), cells)
        nlls.append(nll.detach())
        if list(side.parameters()):
            nll.backward(weights.to(kind))
    assert nlls[0].dtype == torch.float32
    torch.testing.assert_close(nlls[0].double(), nlls[1], rtol=1e-5, atol=0)
    for (name, a), b in zip(single.named_parameters(), double.parameters(), strict=True):
        assert (a.grad - b.grad).abs().max() <= 1e-4 * b.grad.abs().max(), name


def test_nll_without_gradients_is_the_same_and_leaves_no_graph():
    counts, (logits, log_library, t, h), row = random_inputs(1)
    args = "zinb", counts, logits.requires_grad_(), log_library, t, row, h
    with_graph = by_kernel(*args)
    with torch.no_grad():
        without = by_kernel(*args)
    assert with_graph.requires_grad
    assert not without.requires_grad
    assert torch.equal(with_graph, without)


def test_dims_of_the_shared_data_have_all_groups():
    """The rows of theta are only tested if every batch and label occurs."""
    cells = all_cells(table())
    assert len(cells.batch.unique()) == DIMS.n_batches
    assert len(cells.labels.unique()) == DIMS.n_labels


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_backward_pass_gives_the_same(family):
    """The first hands its gradients out, and whoever has them may change them."""
    counts, inputs, row = random_inputs(1)
    leaves = [a.requires_grad_() for a in inputs]
    nll = by_kernel(family, counts, leaves[0], leaves[1], leaves[2], row, leaves[3]).mean()
    nll.backward(retain_graph=True)
    used = [leaf for leaf in leaves if leaf.grad is not None]
    first = [leaf.grad.clone() for leaf in used]
    for leaf in used:
        leaf.grad.zero_()
    nll.backward()
    for leaf, expected in zip(used, first, strict=True):
        torch.testing.assert_close(leaf.grad, expected)
