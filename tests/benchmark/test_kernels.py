"""Speed of the kernels on one thread, beside the matrix product that a step makes anyway.

    OMP_NUM_THREADS=1 pytest tests/benchmark/test_kernels.py --benchmark-columns=min,median,ops

Counts are simulated at 11-12 % non-zero, with 88 % of the non-zeros from 1 to 3. `extra_info` holds ns per element.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from numba import njit
from scipy.sparse import csr_array

from scanpy_scvi.modules import Counts
from scanpy_scvi.modules.likelihoods import formula
from scanpy_scvi.numerics import negative_binomial, poisson, special, zero_inflated
from scanpy_scvi.numerics._memory import aligned_empty
from scanpy_scvi.numerics.adam import adam_step
from scanpy_scvi.numerics.sparse import take_rows

CELLS = 128
GENES = (2_000, 12_826)


class Minibatch(NamedTuple):
    rows: object
    logits: np.ndarray
    log_library: np.ndarray
    log_theta: np.ndarray
    theta_rows: np.ndarray
    zero_logits: np.ndarray


def aligned(values):
    out = aligned_empty(values.shape)
    out[:] = values
    return out


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=GENES)
def minibatch(request):
    rng, genes = np.random.default_rng(0), request.param
    logits = rng.normal(0, 1.7, genes) + rng.normal(0, 0.5, (CELLS, genes))
    rho = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    library = np.exp(rng.normal(np.log(0.23 * genes), 0.3, CELLS))
    log_theta = rng.normal(0, 1, (1, genes))
    theta = np.exp(log_theta)
    x = csr_array(rng.poisson(library[:, None] * rho * rng.gamma(theta, 1 / theta, rho.shape)))
    assert 0.06 < x.nnz / (CELLS * genes) < 0.125
    rows = take_rows(x.indptr, x.indices, x.data, np.arange(CELLS))
    zero_logits = aligned(rng.normal(-1, 1, (CELLS, genes)))
    table = np.zeros(CELLS, np.int64)
    return Minibatch(rows, aligned(logits), np.log(library).astype(np.float32), aligned(log_theta), table, zero_logits)


def per_element(benchmark, function, elements):
    function()  # compiled
    benchmark(function)
    if benchmark.enabled:
        benchmark.extra_info["ns_per_element"] = benchmark.stats.stats.min / elements * 1e9


@pytest.mark.parametrize("buffers", ["reused", "new"])
@pytest.mark.parametrize("family", ["poisson", "negative_binomial", "zero_inflated"])
def test_head(benchmark, family, buffers, minibatch):
    """Forward and backward."""
    head = {"poisson": poisson, "negative_binomial": negative_binomial, "zero_inflated": zero_inflated}[family]
    arguments = minibatch[: {"poisson": 3, "negative_binomial": 5, "zero_inflated": 6}[family]]
    out = head.softmax_head(*arguments) if buffers == "reused" else None
    per_element(benchmark, lambda: head.softmax_head(*arguments, out=out), minibatch.logits.size)


@pytest.mark.parametrize("family", ["poisson", "negative_binomial", "zero_inflated"])
def test_formula(benchmark, family, minibatch):
    """The same in PyTorch's operations."""
    counts = Counts(*(torch.from_numpy(a) for a in minibatch.rows), minibatch.logits.shape[1])
    nll = {"poisson": formula.poisson_nll, "negative_binomial": formula.nb_nll, "zero_inflated": formula.zinb_nll}
    inputs = [torch.from_numpy(a).clone().requires_grad_() for a in (*minibatch[1:4], minibatch.zero_logits)]
    logits, log_library, *further = inputs
    further = further[: {"poisson": 0, "negative_binomial": 1, "zero_inflated": 2}[family]]

    def run():
        nll[family](counts, formula.log_means(logits, log_library), *further).sum().backward()

    per_element(benchmark, run, minibatch.logits.size)


def test_product(benchmark, minibatch):
    """The decoder's float32 product, 128 x 128 by 128 x genes."""
    genes = minibatch.logits.shape[1]
    a, b, out = torch.randn(CELLS, 128), torch.randn(128, genes), torch.empty(CELLS, genes)
    per_element(benchmark, lambda: torch.mm(a, b, out=out), CELLS * genes)


@njit(error_model="numpy", fastmath={"contract"})
def exp_all(x, out):
    for i in range(x.size):
        out[i] = special.exp32(x[i])


@njit(error_model="numpy", fastmath={"contract"})
def log_all(x, out):
    for i in range(x.size):
        out[i] = special.log32(x[i])


@pytest.mark.parametrize("function", [exp_all, np.exp, log_all, np.log], ids=["exp32", "np.exp", "log32", "np.log"])
def test_exp_and_log(benchmark, function):
    """Vectorised: a tenth of the 1.7 ns per element of the C library's scalar functions."""
    x, out = aligned(np.random.default_rng(0).uniform(0.1, 20, 4096)), aligned_empty((4096,))
    per_element(benchmark, lambda: function(x, out), x.size)


@pytest.mark.parametrize("average", [False, True], ids=["plain", "with average"])
@pytest.mark.parametrize("kind", ["adam_step", "torch fused"])
@pytest.mark.parametrize("size", [500_000, 3_300_000])
def test_adam(benchmark, size, kind, average):
    weights, gradient, first, second, mean = (torch.randn(size) for _ in range(5))
    second.abs_()
    if kind == "torch fused":
        weights = torch.nn.Parameter(weights)
        weights.grad = gradient
        optimizer = torch.optim.Adam([weights], lr=1e-3, fused=True)

        def step():
            optimizer.step()
            if average:
                torch._foreach_lerp_([mean], [weights.data], 0.01)
    else:
        arrays = [t.numpy() for t in (weights, gradient, first, second, mean)]

        def step():
            adam_step(*arrays, learning_rate=1e-3, step=10, average_weight=0.01 if average else 0.0)

    per_element(benchmark, step, size)
