"""Public log-pmf and gradients: properties, SciPy's values, sparse input, sums, and sentences for bad input."""

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from scipy import sparse, stats

from scanpy_scvi.numerics import negative_binomial, poisson, zero_inflated

FAMILIES = {
    "poisson": (poisson, 1, reference.poisson_logpmf),
    "nb": (negative_binomial, 2, reference.nb_logpmf),
    "zinb": (zero_inflated, 3, reference.zinb_logpmf),
}
FORMATS = {
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc_matrix": sparse.csc_matrix,
    "csc_array": sparse.csc_array,
    "coo_array": sparse.coo_array,
}
means = st.floats(0.01, 60)
thetas = st.floats(0.05, 1e6)
logits = st.floats(-15, 15)


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    return rng.negative_binomial(0.5, 0.1, (23, 31)) * (rng.random((23, 31)) < 0.4)


def parameters(kind, n=23, genes=31):
    """(mu, theta, zero_logits) that vary over genes, cells, both, or not at all."""
    rng = np.random.default_rng(1)
    shape = {"scalar": (), "gene": (genes,), "row": (1, genes), "cell": (n, 1), "entry": (n, genes)}[kind]
    return rng.gamma(2, 2, shape), rng.gamma(2, 1, shape) + 0.1, rng.normal(0, 2, shape)


@given(mu=means, theta=thetas, h=logits)
@settings(max_examples=60, deadline=None)
def test_probabilities_sum_to_one(mu, theta, h):
    top = int(mu + 40 * np.sqrt(mu + mu**2 / theta) + 700 * (1 + mu / theta) + 50)
    x = np.arange(min(top, 2_000_000), dtype=float)
    assert np.exp(poisson.logpmf(x, mu)).sum() == pytest.approx(1, abs=1e-9)
    assert np.exp(negative_binomial.logpmf(x, mu, theta)).sum() == pytest.approx(1, abs=1e-8)
    assert np.exp(zero_inflated.logpmf(x, mu, theta, h)).sum() == pytest.approx(1, abs=1e-8)


@given(mu=means, theta=st.floats(0.05, 1e4), x=st.integers(0, 500))
@settings(max_examples=80, deadline=None)
def test_gradient_is_the_slope(mu, theta, x):
    d_mu, d_theta = negative_binomial.gradient(float(x), mu, theta)
    for position, (value, slope) in enumerate(((mu, d_mu), (theta, d_theta))):
        step = 1e-5 * value
        ends = [
            negative_binomial.logpmf(float(x), *((mu + s, theta) if position == 0 else (mu, theta + s)))
            for s in (step, -step)
        ]
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(slope), rel=1e-4, abs=1e-5 / value)


@given(mu=means, x=st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_negative_binomial_tends_to_poisson(mu, x):
    limit = poisson.logpmf(float(x), mu)
    for theta in (1e5, 1e9, 1e15, 1e24, 1e300, np.inf):
        gap = abs((x - mu) ** 2 - x) / (2 * theta) + (x + mu) ** 3 / theta / theta
        assert negative_binomial.logpmf(float(x), mu, theta) == pytest.approx(limit, abs=1.1 * gap + 1e-10)
    assert negative_binomial.gradient(float(x), mu, np.inf).mu == poisson.gradient(float(x), mu)
    assert negative_binomial.gradient(float(x), mu, np.inf).theta == 0


@given(mu=means, theta=thetas, x=st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_zero_inflation_vanishes(mu, theta, x):
    nb = negative_binomial.logpmf(float(x), mu, theta)
    # A mass π at zero matters where NB(0) is not far above it.
    assert zero_inflated.logpmf(float(x), mu, theta, -np.inf) == nb
    if nb > -30:
        assert zero_inflated.logpmf(float(x), mu, theta, -60.0) == pytest.approx(nb, abs=1e-10)
    assert zero_inflated.logpmf(0.0, mu, theta, np.inf) == 0


def test_tutorial_values():
    x = np.array([0.0, 1.0, 7.0])
    np.testing.assert_allclose(np.exp(negative_binomial.logpmf(x, 3.7, 2.5)), [0.103245, 0.154036, 0.049555], atol=5e-7)
    logit_form = zero_inflated.logpmf(x, 3.7, 2.5, 0.8)
    pi = 1 / (1 + np.exp(-0.8))
    by_probability = pi * (x == 0) + (1 - pi) * np.exp(negative_binomial.logpmf(x, 3.7, 2.5))
    np.testing.assert_allclose(np.exp(logit_form), by_probability, rtol=1e-12)


def test_scipy_values():
    rng = np.random.default_rng(2)
    mu, theta = rng.gamma(1, 20, 500) + 1e-3, rng.gamma(1, 5, 500) + 0.05
    x = rng.negative_binomial(theta, theta / (theta + mu)).astype(float)
    np.testing.assert_allclose(poisson.logpmf(x, mu), stats.poisson.logpmf(x, mu), rtol=1e-10, atol=1e-10)
    expected = stats.nbinom.logpmf(x, theta, theta / (theta + mu))
    np.testing.assert_allclose(negative_binomial.logpmf(x, mu, theta), expected, rtol=1e-10, atol=1e-10)


@given(shape=array_shapes(min_dims=0, max_dims=3, max_side=4), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_matches_the_reference_on_any_shape_integer_or_not(shape, seed):
    rng = np.random.default_rng(seed)
    x = rng.gamma(0.5, 30, shape) * (rng.random(shape) < 0.6)
    mu, theta, h = rng.gamma(1, 10, shape) + 0.01, rng.gamma(1, 5, shape) + 0.01, rng.normal(0, 4, shape)
    for module, n, twin in FAMILIES.values():
        got = module.logpmf(x, *(mu, theta, h)[:n])
        assert got.shape == shape
        np.testing.assert_allclose(got, twin(x, *(mu, theta, h)[:n]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_matches_float64_autograd(family, counts):
    module, n, _ = FAMILIES[family]
    leaves = [torch.tensor(p, requires_grad=True) for p in parameters("entry")[:n]]
    x, mu = torch.tensor(counts, dtype=torch.float64), leaves[0]
    log_p = x * mu.log() - mu - torch.lgamma(x + 1)
    if n > 1:
        theta = leaves[1]
        log_p = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
        log_p = log_p + theta * (theta / (theta + mu)).log() + x * (mu / (theta + mu)).log()
    if n > 2:
        inside = log_p - torch.nn.functional.softplus(leaves[2])
        inflated = torch.logaddexp(torch.nn.functional.logsigmoid(leaves[2]), inside)
        log_p = torch.where(x == 0, inflated, inside)
    log_p.sum().backward()
    got = module.gradient(counts, *parameters("entry")[:n])
    for a, b in zip(got if n > 1 else (got,), leaves, strict=True):
        np.testing.assert_allclose(a, b.grad.numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", ["scalar", "gene", "row", "cell", "entry"])
@pytest.mark.parametrize("family", FAMILIES)
def test_sparse_equals_dense_and_sums_equal_entries(family, kind, counts):
    module, n, twin = FAMILIES[family]
    values = parameters(kind)[:n]
    entries = module.logpmf(counts, *values)
    np.testing.assert_allclose(entries, twin(counts, *values), rtol=1e-9, atol=1e-9)
    slopes = np.stack(module.gradient(counts, *values)) if n > 1 else module.gradient(counts, *values)[None]
    for make in FORMATS.values():
        x = make(counts)
        np.testing.assert_array_equal(module.logpmf(x, *values), entries)
        for axis in (0, 1):
            for source in (counts, x):
                got = module.logpmf(source, *values, axis=axis)
                np.testing.assert_allclose(got, entries.sum(axis), rtol=1e-10, atol=1e-9)
                got = np.reshape(module.gradient(source, *values, axis=axis), (n, -1))
                np.testing.assert_allclose(got, slopes.sum(1 + axis), rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("n_cells", [0, 1])
def test_few_cells(n_cells):
    x = sparse.csr_array((n_cells, 3))
    assert negative_binomial.logpmf(x, 1.0, 1.0).shape == (n_cells, 3)
    np.testing.assert_allclose(negative_binomial.logpmf(x, np.ones(3), 1.0, axis=0), n_cells * np.log(0.5))
    np.testing.assert_allclose(negative_binomial.logpmf(x, 1.0, 1.0, axis=1), np.full(n_cells, 3 * np.log(0.5)))


def test_many_cells_pass_in_chunks():
    rng = np.random.default_rng(3)
    x = sparse.csr_array(rng.poisson(5, (700, 600)) * (rng.random((700, 600)) < 0.05))
    mu, theta = np.full((700, 1), 0.3), np.linspace(0.5, 2, 600)
    dense = x.toarray()
    np.testing.assert_allclose(
        negative_binomial.logpmf(x, mu, theta, axis=0), reference.nb_logpmf(dense, mu, theta).sum(0), rtol=1e-10
    )


def test_repeated_and_explicit_zero_entries_of_csr():
    x = sparse.csr_matrix((np.array([1.0, 2.0, 0.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    dense = np.array([[0.0, 3.0], [0.0, 0.0]])
    np.testing.assert_array_equal(poisson.logpmf(x, 2.0), poisson.logpmf(dense, 2.0))
    np.testing.assert_allclose(poisson.logpmf(x, 2.0, axis=0), poisson.logpmf(dense, 2.0, axis=0))
    assert x.nnz == 3  # the caller's matrix is as it was


@pytest.mark.parametrize(
    ("given_type", "result_type"), [(np.float32, np.float32), (np.float64, np.float64), (np.int32, np.float64)]
)
def test_types(given_type, result_type, counts):
    for x in (counts.astype(given_type), sparse.csr_matrix(counts.astype(given_type))):
        for axis in (None, 0, 1):
            assert poisson.logpmf(x, 2.0, axis=axis).dtype == result_type
            assert negative_binomial.gradient(x, 2.0, 1.0, axis=axis).theta.dtype == result_type


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([-1.0], 1.0, 1.0), r"`x` contains -1\.0; counts must be finite and not negative"),
        (([np.nan], 1.0, 1.0), r"`x` contains nan"),
        ((sparse.csr_array([[np.inf, 0]]), 1.0, 1.0), r"`x` contains inf"),
        ((["a"], 1.0, 1.0), r"`x` has type <U1; expected real numbers"),
        (([1.0], 0.0, 1.0), r"`mu` contains 0\.0; it must be positive"),
        (([1.0], 1.0, -2.0), r"`theta` contains -2\.0; it must be positive"),
        (([1.0], 1.0, np.nan), r"`theta` contains nan; it must be positive"),
        (
            ([1.0, 2.0], [1.0, 2.0, 3.0], 1.0),
            r"`mu` has shape \(3,\), which does not broadcast to the shape \(2,\) of `x`",
        ),
        (([1.0], np.ones((2, 1)), 1.0), r"`mu` has shape \(2, 1\)"),
    ],
)
def test_bad_input_says_what_is_wrong(args, message):
    for function in (negative_binomial.logpmf, negative_binomial.gradient):
        with pytest.raises(ValueError, match=message):
            function(*args)
    with pytest.raises(ValueError, match=message):
        zero_inflated.logpmf(*args, 0.0)


def test_bad_zero_logits_and_axis():
    with pytest.raises(ValueError, match="`zero_logits` contains nan; it must be a number"):
        zero_inflated.logpmf([1.0], 1.0, 1.0, np.nan)
    with pytest.raises(ValueError, match="`axis` is 2; expected None"):
        poisson.logpmf(np.ones((2, 2)), 1.0, axis=2)
    with pytest.raises(ValueError, match="1 dimensions; sums along an axis need cells x genes"):
        poisson.logpmf(np.ones(2), 1.0, axis=0)
