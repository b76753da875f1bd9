import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanpy_scvi.numerics.fold_changes import fold_changes
from scanpy_scvi.numerics.team import team_of

SHARES = (0.025, 0.5, 0.9)


def run(a, b, partner=None, **options):
    n = a.shape[1]
    settings = {"pseudocount": 0.1, "reported": 0.1, "delta": 0.25, "larger": False, "starts": np.array([0])}
    partner = np.arange(n) if partner is None else partner
    return fold_changes(a, b, partner, quantiles=SHARES, **(settings | options))


@given(
    st.integers(1, 300),
    st.integers(1, 5),
    st.sampled_from(["gamma", "ties", "outliers", "same"]),
    st.integers(0, 2**32 - 1),
)
def test_equals_numpy(n, genes, kind, seed):
    rng = np.random.default_rng(seed)
    make = {
        "gamma": lambda: rng.gamma(0.5, size=(genes, n)),
        "ties": lambda: rng.integers(0, 3, (genes, n)),
        "outliers": lambda: np.where(rng.random((genes, n)) < 0.02, 1e30, rng.random((genes, n))),
        "same": lambda: np.full((genes, n), 0.3),
    }[kind]
    a, b = (make().astype(np.float32) for _ in range(2))
    partner = rng.integers(0, n, n)
    found = run(a, b, partner)
    c = np.float32(0.1)
    d = np.log2((a + c).astype(float) / (b[:, partner] + c))
    np.testing.assert_allclose(found.mean, d.mean(1), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(found.std, d.std(1), rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(found.quantiles, np.quantile(d, SHARES, axis=1), rtol=1e-5, atol=2e-5)
    near = np.isclose(np.abs(d), 0.25, atol=1e-5).sum(1)
    assert (np.abs(found.up[0] - (d >= 0.25).sum(1)) <= near).all()
    assert (np.abs(found.down[0] - (d < -0.25).sum(1)) <= near).all()
    np.testing.assert_allclose(found.mean_a, a.mean(1), rtol=1e-4)
    np.testing.assert_allclose(found.mean_b, b[:, partner].mean(1), rtol=1e-4)


def test_parts_and_larger():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 20)).astype(np.float32)
    starts = np.array([0, 7, 8])
    found = run(a, b, larger=True, starts=starts)
    np.testing.assert_array_equal(found.up, np.add.reduceat(a > b, starts, axis=1, dtype=int).T)
    np.testing.assert_array_equal(found.up + found.down, [[7] * 3, [1] * 3, [12] * 3])


def test_other_pseudocount_for_what_is_reported():
    a, b = np.float32([[1.0, 3.0]]), np.float32([[0.0, 1.0]])
    found = run(a, b, pseudocount=1.0, reported=0.0, delta=1.0)
    assert found.up.item() == 2  # 2 / 1 and 4 / 2
    assert np.isfinite(found.mean).all()  # log of zero is kept away
    assert found.mean.item() > 40


@pytest.mark.parametrize("size", [1, 2])
def test_threads_share_the_genes(size):
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 500, 400)).astype(np.float32)
    alone = run(a, b)
    with team_of(size):
        together = run(a, b)
    for x, y in zip(alone, together, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 3])
def test_what_is_not_finite_gives_nan_and_harms_no_other_gene(odd, place):
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 50)).astype(np.float32)
    good = run(a, b)
    a[1, place] = odd
    found = run(a, b)
    assert np.isnan(found.quantiles[:, 1]).all()
    np.testing.assert_array_equal(found.quantiles[:, [0, 2]], good.quantiles[:, [0, 2]])


def test_partners_outside_are_refused():
    a = np.ones((2, 4), np.float32)
    with pytest.raises(ValueError, match="from 0 to 3"):
        run(a, a, np.array([0, 1, 2, 4]))
    with pytest.raises(ValueError, match="the same genes"):
        run(a, a[:1])
