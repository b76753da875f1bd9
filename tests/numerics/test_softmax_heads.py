"""The three fused heads against the slow reference, autograd and finite differences."""

import numpy as np
import pytest
import reference
import torch
from scipy.sparse import csr_array

from scanpy_scvi.numerics import negative_binomial, poisson, zero_inflated
from scanpy_scvi.numerics.negative_binomial.rising import survey
from scanpy_scvi.numerics.sparse import take_rows

FAMILIES = ("poisson", "nb", "zinb")
FIELDS = ("nll", "logits", "log_library", "log_theta", "zero_logits")


def make(seed=0, n=17, genes=203, n_theta=1, theta=(-3, 5), depth=6.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, genes)).astype(np.float32)
    log_library = rng.normal(depth, 0.5, n).astype(np.float32)
    log_theta = rng.uniform(*theta, (n_theta, genes)).astype(np.float32)
    theta_rows = rng.integers(0, n_theta, n) if n_theta < n else np.arange(n)
    zero_logits = rng.normal(0, 3, (n, genes)).astype(np.float32)
    rho = np.exp(logits - logits.max(1, keepdims=True))
    mu = np.exp(log_library)[:, None] * rho / rho.sum(1, keepdims=True)
    x = rng.poisson(mu * rng.gamma(0.7, 1 / 0.7, mu.shape)).astype(np.float64)
    return x, logits, log_library, log_theta, theta_rows, zero_logits, rng.uniform(0.2, 2, n).astype(np.float32)


def head(family, x, logits, log_library, log_theta, theta_rows, zero_logits, **kwargs):
    x = csr_array(x)
    rows = take_rows(x.indptr, x.indices, x.data, np.arange(x.shape[0]))
    if family == "poisson":
        return poisson.softmax_head(rows, logits, log_library, **kwargs)
    if family == "nb":
        return negative_binomial.softmax_head(rows, logits, log_library, log_theta, theta_rows, **kwargs)
    return zero_inflated.softmax_head(rows, logits, log_library, log_theta, theta_rows, zero_logits, **kwargs)


def expected(family, x, logits, log_library, log_theta, theta_rows, zero_logits, weights=None):
    if family == "poisson":
        log_theta = theta_rows = None
    if family != "zinb":
        zero_logits = None
    return reference.softmax_head(x, logits, log_library, log_theta, theta_rows, zero_logits, weights)


def assert_head(got, want, rtol=1e-5):
    for name, a, b in zip(FIELDS, got, want, strict=True):
        if b is None:
            assert a is None, name
            continue
        assert a.dtype == np.float32, name
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1.0, 0.1 * np.abs(b).max()), err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_theta", [1, 3, 17])
def test_head_matches_reference(family, n_theta):
    *inputs, weights = make(n_theta=n_theta)
    got = head(family, *inputs, weights=weights)
    assert_head(got, expected(family, *inputs, weights))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("theta", "depth"), [((-9, -5), 6), ((5, 8), 9), ((-2, 3), 13), ((-2, 3), -3)])
def test_head_over_wide_ranges(family, theta, depth):
    # Tiny and large θ, libraries of half a million and of 0.05 (nearly all counts zero).
    *inputs, weights = make(seed=1, theta=theta, depth=depth)
    assert_head(head(family, *inputs, weights=weights), expected(family, *inputs, weights), rtol=2e-5)


@pytest.mark.parametrize("log_theta", [16.1, 30.0, 60.0])
def test_large_theta_is_poisson(log_theta):
    x, logits, library, _, rows, zero, _ = make(seed=2)
    t = np.full((1, logits.shape[1]), log_theta, np.float32)
    nb, po = head("nb", x, logits, library, t, rows, zero), head("poisson", x, logits, library, t, rows, zero)
    # At θ the two differ by about Σ ((x - μ)² - x) / 2θ.
    np.testing.assert_allclose(nb.nll, po.nll, rtol=2e-6 + 1e3 * np.exp(-log_theta))
    assert np.abs(nb.log_theta).max() < 1e7 * np.exp(-min(log_theta, 40))  # θ is held at e^40 beyond
    np.testing.assert_allclose(nb.logits, po.logits, rtol=1e-4, atol=1e-4 * np.abs(po.logits).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_head_matches_float64_autograd(family):
    x, logits, library, log_theta, rows, zero, weights = make(seed=3, n_theta=3, theta=(-2, 3))
    leaves = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (logits, library, log_theta, zero)]
    raw, ell, t, h = leaves
    counts = torch.tensor(x)
    eta = ell[:, None] + torch.log_softmax(raw, 1)
    t_rows = t[torch.tensor(rows)]
    log_p = counts * eta - eta.exp() - torch.lgamma(counts + 1)
    if family != "poisson":
        theta, both = t_rows.exp(), torch.logaddexp(eta, t_rows)
        log_p = torch.lgamma(counts + theta) - torch.lgamma(theta) - torch.lgamma(counts + 1)
        log_p = log_p + theta * (t_rows - both) + counts * (eta - both)
    if family == "zinb":
        inside = log_p - torch.nn.functional.softplus(h)
        log_p = torch.where(counts == 0, torch.logaddexp(torch.nn.functional.logsigmoid(h), inside), inside)
    nll = -log_p.sum(1)
    (nll * torch.tensor(weights)).sum().backward()
    got = head(family, x, logits, library, log_theta, rows, zero, weights=weights)
    want = [nll.detach().numpy()] + [None if a.grad is None else a.grad.numpy() for a in leaves]
    assert_head(got, want)


@pytest.mark.parametrize("family", FAMILIES)
def test_finite_differences_of_the_reference(family):
    # The reference's gradients are written by hand too: check them in float64.
    x, *arrays = make(seed=4, n=3, genes=7, theta=(-2, 2))[:-1]
    arrays = [a.astype(float) if a.dtype == np.float32 else a for a in arrays]
    grads = expected(family, x, *arrays)[1:]
    for k, grad in zip((0, 1, 2, 4), grads, strict=True):
        if grad is None:
            continue
        for index in np.ndindex(arrays[k].shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = [a.copy() for a in arrays]
                moved[k][index] += step
                sides.append(expected(family, x, *moved)[0].sum())
            assert (sides[0] - sides[1]) / 2e-5 == pytest.approx(grad[index], rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_gradient_gives_the_same_nll(family):
    *inputs, _ = make(seed=5)
    alone = head(family, *inputs, gradient=False)
    np.testing.assert_array_equal(alone.nll, head(family, *inputs).nll)
    assert alone[1:] == (None, None, None, None)


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_beyond_the_fast_path(family):
    # 8 and 9 lie on both sides of the switch; halves take the general formula; empty rows are allowed.
    x = np.array([[8, 9, 0, 0.5], [0, 0, 0, 0], [1e4, 255, 256, 2.5]])
    logits = np.array([[0, 1, 2, 3], [0, 0, 0, 0], [9, 5, 5, 0]], np.float32)
    library = np.log([20, 3, 1e4]).astype(np.float32)
    for t in (-9.0, 0.0, 9.0):
        args = (x, logits, library, np.full((1, 4), t, np.float32), np.zeros(3, int), np.zeros((3, 4), np.float32))
        assert_head(head(family, *args), expected(family, *args))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("family", "which"),
    [
        ("poisson", 0),
        ("poisson", 1),
        ("nb", 0),
        ("nb", 1),
        ("nb", 2),
        ("zinb", 0),
        ("zinb", 1),
        ("zinb", 2),
        ("zinb", 4),
    ],
)
def test_non_finite_input_gives_non_finite_nll(family, which, bad):
    x, *arrays, _ = make(seed=6, genes=40)
    for column in (int(np.argmin(x[0])), int(np.argmax(x[0]))):  # a zero count and a positive one
        changed = [a.copy() for a in arrays]
        changed[which][0 if which == 1 else (0, column)] = bad
        assert not np.isfinite(head(family, x, *changed).nll[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_extreme_but_finite_input_stays_finite(family):
    x = np.array([[0.0, 1, 2, 3, 0, 40]])
    logits = np.array([[-200, -150, 100, -300, 0, 50]], np.float32)
    for t in (-80.0, -30.0, 80.0):
        args = (x, logits, np.float32([8]), np.full((1, 6), t, np.float32), [0], np.float32([[90, -90, 90, -90, 0, 0]]))
        for part in head(family, *args):
            assert part is None or np.isfinite(part).all()


def test_shapes_are_checked():
    x, logits, library, log_theta, rows, zero, _ = make()
    with pytest.raises(ValueError, match=r"`log_library` has shape"):
        head("nb", x, logits, library[:3], log_theta, rows, zero)
    with pytest.raises(ValueError, match="has 100 genes"):
        head("nb", x, logits[:, :100], library, log_theta, rows, zero)
    with pytest.raises(ValueError, match="`theta_rows` must give"):
        head("nb", x, logits, library, log_theta, rows + 1, zero)
    with pytest.raises(ValueError, match="`zero_logits` has shape"):
        head("zinb", x, logits, library, log_theta, rows, zero[:, :5])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_theta", [1, 3, 17])
def test_reused_buffers_are_filled_anew(family, n_theta):
    *first, weights = make(seed=7, n_theta=n_theta)
    *second, _ = make(seed=8, n_theta=n_theta)
    out = head(family, *first, weights=weights)
    want = head(family, *second, weights=weights)
    got = head(family, *second, weights=weights, out=out)
    for a, b, buffer in zip(got, want, out, strict=True):
        assert a is buffer
        np.testing.assert_array_equal(a, b)
    alone = head(family, *first, gradient=False, out=out)
    assert alone.nll is out.nll
    assert alone[1:] == (None, None, None, None)


@pytest.mark.parametrize("family", FAMILIES)
def test_buffers_that_do_not_fit_are_refused(family):
    *inputs, _ = make(seed=9)
    out = head(family, *inputs)
    with pytest.raises(ValueError, match=r"`out.logits` is None"):
        head(family, *inputs, out=head(family, *inputs, gradient=False))
    with pytest.raises(ValueError, match=r"`out.nll` is float32 of shape \(16,\)"):
        head(family, *inputs, out=out._replace(nll=out.nll[1:]))
    for wrong in (out.logits.astype(float), np.asfortranarray(out.logits), out.logits[:, 1:]):
        with pytest.raises(ValueError, match=r"`out.logits` is float"):
            head(family, *inputs, out=out._replace(logits=wrong))


@pytest.mark.parametrize("family", ["nb", "zinb"])
def test_rows_of_theta_without_cells_have_no_gradient(family):
    x, logits, library, log_theta, _, zero, _ = make(seed=10, n_theta=3)
    out = head(family, x, logits, library, log_theta, np.zeros(17, int), zero)
    again = head(family, x, logits, library, log_theta, np.full(17, 2), zero, out=out)
    assert again.log_theta[2].any()
    assert not again.log_theta[:2].any()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("genes", [1, 15, 64, 100])
def test_bits_do_not_depend_on_where_arrays_lie_or_on_the_order_of_cells(family, genes):
    x, logits, library, log_theta, rows, zero, weights = make(seed=11, genes=genes, n_theta=3)
    plain = head(family, x, logits, library, log_theta, rows, zero, weights=weights)
    for gap in (1, 4, 12, 16, 40):
        memory = np.zeros(2 * logits.size + gap, np.float32)
        near, far = memory[: logits.size].reshape(logits.shape), memory[logits.size + gap :].reshape(logits.shape)
        near[:], far[:] = logits, zero
        moved = head(family, x, near, library, log_theta, rows, far, weights=weights)
        for a, b in zip(plain, moved, strict=True):
            np.testing.assert_array_equal(a, b)
    back = slice(None, None, -1)
    turned = head(family, x[back], logits[back], library[back], log_theta, rows[back], zero[back])
    np.testing.assert_array_equal(turned.nll[back], plain.nll)


@pytest.mark.parametrize("family", ["nb", "zinb"])
@pytest.mark.parametrize("odd", ["none", "a fraction", "a tiny θ"])
def test_tabled_counts_match_reference(family, odd):
    # Enough counts of every size for tables up to 63; a count or θ that they cannot serve changes the way, not the sum.
    rng = np.random.default_rng(12)
    n, genes = 200, 9
    log_theta = np.linspace(-4, 9, genes, dtype=np.float32)[None]
    x = rng.integers(0, 70, (n, genes)).astype(np.float64)
    if odd == "a fraction":
        x[3, 2] = 2.5
    if odd == "a tiny θ":
        log_theta[0, 0] = -12
    logits = rng.normal(0, 1, (n, genes)).astype(np.float32)
    inputs = (x, logits, np.log(x.sum(1)).astype(np.float32), log_theta, np.zeros(n, int))
    zero = rng.normal(0, 3, (n, genes)).astype(np.float32)
    sparse = csr_array(x)
    top, plain = survey(sparse.indptr, sparse.data.astype(np.float32), np.arange(n), np.exp(log_theta[0]))
    assert top == 63
    assert plain == (odd == "none")
    weights = rng.uniform(0.2, 2, n).astype(np.float32)
    assert_head(head(family, *inputs, zero, weights=weights), expected(family, *inputs, zero, weights))
