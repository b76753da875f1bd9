import anndata as ad
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

import scanpy_scvi as sv

simulate = sv.datasets.simulate


def _probability_integral(x, cdf, rng):
    """Uniform values if x really comes from the distribution (randomised over the steps of a discrete one)."""
    return cdf(x - 1) + rng.random(x.shape) * (cdf(x) - cdf(x - 1))


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_counts_follow_the_stated_distribution(likelihood):
    adata = simulate(n_cells=1000, n_genes=100, likelihood=likelihood, random_state=1)
    x, mu = adata.X.toarray(), adata.layers["true_rate"]
    if likelihood == "poisson":
        family = stats.poisson(mu)
    else:
        theta = adata.var["true_dispersion"].to_numpy()
        family = stats.nbinom(theta, theta / (theta + mu))
    pi = expit(adata.layers["true_zero_logits"]) if likelihood == "zinb" else 0.0

    def cdf(k):
        return np.where(k < 0, 0, pi + (1 - pi) * family.cdf(k))

    u = _probability_integral(x, cdf, np.random.default_rng(0))
    assert stats.kstest(u.ravel(), "uniform").statistic < 0.006  # critical value at 0.1 %: 0.0062
    wrong = _probability_integral(x, stats.poisson(1.2 * mu).cdf, np.random.default_rng(0))
    assert stats.kstest(wrong.ravel(), "uniform").statistic > 0.006


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
@pytest.mark.parametrize("density", [0.1, 0.3])
def test_density_is_met(likelihood, density):
    adata = simulate(n_cells=400, n_genes=300, likelihood=likelihood, density=density)
    assert np.mean(adata.X.toarray() > 0) == pytest.approx(density, abs=0.01)


def test_truth_is_consistent_and_latent_separates_labels():
    adata = simulate(n_cells=300, n_labels=3, n_batches=3)
    np.testing.assert_allclose(adata.layers["true_rate"].sum(axis=1), adata.obs["true_library"])
    assert sv.metrics.label_score(adata.obsm["true_z"], adata.obs["label"]) > 0.95
    assert sv.metrics.batch_mixing(adata.obsm["true_z"], adata.obs["batch"]) == pytest.approx(1 / 3, abs=0.04)
    assert set(adata.obs["batch"].cat.categories) == {"batch_0", "batch_1", "batch_2"}


def test_optional_truths_only_where_they_exist():
    assert "true_zero_logits" not in simulate(likelihood="nb").layers
    poisson = simulate(likelihood="poisson")
    assert "true_dispersion" not in poisson.var
    assert "true_zero_logits" not in poisson.layers


def test_same_seed_same_data_and_generators_are_taken():
    one, two, other = simulate(random_state=3), simulate(random_state=3), simulate(random_state=4)
    assert (one.X != two.X).nnz == 0
    assert (one.X != other.X).nnz > 0
    assert (simulate(random_state=np.random.default_rng(3)).X != one.X).nnz == 0


def test_no_cell_is_empty():
    adata = simulate(n_cells=500, n_genes=20, density=0.05)
    assert adata.X.sum(axis=1).min() >= 1


def test_survives_a_round_trip(tmp_path):
    adata = simulate(likelihood="zinb")
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    assert (back.X != adata.X).nnz == 0
    assert np.array_equal(back.layers["true_zero_logits"], adata.layers["true_zero_logits"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_cells": 0}, "n_cells=0"),
        ({"likelihood": "normal"}, "'nb', 'zinb', 'poisson'"),
        ({"density": 1.0}, "density=1.0 was found, more than 0 and less than"),
        ({"density": 0.0}, "density=0.0 was found"),
        ({"density": 0.97, "likelihood": "zinb"}, "less than 0.77"),
    ],
)
def test_impossible_wishes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        simulate(**options)
