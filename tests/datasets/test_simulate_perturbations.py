"""Simulated screens: every random step has the distribution that the docstring states."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy import stats

from scanpy_scvi.datasets import _perturbed_counts, simulate_perturbations
from scanpy_scvi.datasets._perturbation_protocols import CORRECTED, REFERENCE
from scanpy_scvi.datasets._perturbed_cells import draw_cells, draw_perturbations

SMALL = {"n_perturbations": 12, "n_latent": 6, "n_genes": 20, "cells_per_perturbation": 100}


def _codes(adata):
    """Perturbation of each cell, -1 for the control."""
    names = adata.uns["simulation"]["perturbations"].tolist()
    return np.array([names.index(k) if k in names else -1 for k in adata.obs["perturbation"]])


@pytest.fixture(scope="module")
def reference():
    return simulate_perturbations(protocol="reference", **SMALL, keep_rate=True)


@pytest.fixture(scope="module")
def corrected():
    return simulate_perturbations(**{**SMALL, "n_perturbations": 30}, keep_rate=True)


def test_the_reference_gives_every_gene_a_million(reference):
    rate = reference.layers["true_rate"].astype(float)
    np.testing.assert_allclose(rate.sum(0), 1e6, rtol=1e-5)
    totals = np.asarray(reference.X.sum(0, dtype=np.float64)).ravel()
    assert abs((totals - 1e6) / 1e3).max() < 4.5  # Poisson: a standard deviation of 1000
    assert np.std(reference.obs["true_library"] / reference.obs["true_library"].mean()) > 0.1  # depth tells about z
    assert reference.shape == (1200, 20)
    assert "true_dispersion" not in reference.var
    assert reference.obs["batch"].nunique() == 1
    assert not reference.obs["escaped"].any()


def test_softmax_over_genes_gives_every_cell_its_depth():
    adata = simulate_perturbations(protocol="reference", softmax_over="genes", **SMALL)
    np.testing.assert_allclose(adata.obs["true_library"], 4000)
    totals = np.asarray(adata.X.sum(1)).ravel()
    assert totals.mean() == pytest.approx(4000, abs=4 * np.sqrt(4000 / 1200))
    assert totals.var() / 4000 == pytest.approx(1, abs=4 * np.sqrt(2 / 1200))  # Poisson, and nothing else
    assert np.std(np.asarray(adata.X.sum(0))) > 0.05 * np.mean(np.asarray(adata.X.sum(0)))


@pytest.mark.parametrize("n_latent", [1, 2, 15])
def test_numbers_of_targets(n_latent):
    rng = np.random.default_rng(0)
    most, n = min(3, n_latent), 6000
    without = draw_perturbations(rng, n, n_latent, 5, CORRECTED).targets.sum(1)
    assert set(without) == set(range(1, most + 1))
    np.testing.assert_allclose(np.bincount(without)[1:] / n, 1 / most, atol=0.025)
    within = draw_perturbations(rng, n, n_latent, 5, REFERENCE).targets
    expected = np.mean([1 - (1 - 1 / n_latent) ** k for k in range(1, most + 1)])  # of a latent to be hit
    assert within.mean() == pytest.approx(expected, abs=0.01)


def test_shifts_are_normal_with_either_sign_and_nothing_else():
    targets, shifts = draw_perturbations(np.random.default_rng(1), 2000, 10, 2.0, CORRECTED)
    assert (shifts[~targets] == 0).all()
    hit = shifts[targets]
    assert np.mean(hit > 0) == pytest.approx(0.5, abs=0.03)
    assert stats.kstest(abs(hit), stats.norm(2, 0.2).cdf).pvalue > 0.01


def test_combinations_have_the_sum_of_two_shifts():
    adata = simulate_perturbations(protocol="reference", **SMALL, n_combinations=20)
    names, shifts = (adata.uns["simulation"][key] for key in ("perturbations", "shifts"))
    combined = [k for k in adata.obs["perturbation"].cat.categories if "+" in k]
    assert len(set(combined)) == 20
    assert adata.n_obs == 100 * (12 + 20)
    of = dict(zip(names, shifts, strict=True))
    for label in combined:
        first, second = label.split("+")
        assert names.tolist().index(first) < names.tolist().index(second)
        z = adata.obsm["z"][adata.obs["perturbation"] == label]
        np.testing.assert_allclose(z.mean(0), of[first] + of[second], atol=4.5 / np.sqrt(100))
    without = simulate_perturbations(protocol="reference", **SMALL)
    np.testing.assert_array_equal(shifts, without.uns["simulation"]["shifts"])
    for wrong in (-1, 12 * 11 // 2 + 1):
        with pytest.raises(ValueError, match="n_combinations"):
            simulate_perturbations(**SMALL, n_combinations=wrong)


def test_latent_states_are_normal_around_the_shifts(reference):
    k, truth = _codes(reference), reference.uns["simulation"]
    z = reference.obsm["z"]
    for j in range(12):
        np.testing.assert_allclose(z[k == j].mean(0), truth["shifts"][j], atol=4.5 / np.sqrt(100))
    residual = z - truth["shifts"][k]
    assert stats.kstest(residual.ravel(), "norm").pvalue > 0.01
    np.testing.assert_allclose(np.cov(residual.T), np.eye(6), atol=0.15)
    np.testing.assert_array_equal(truth["targets"], truth["shifts"] != 0)


def test_control_and_escaping_cells_have_the_baseline(corrected):
    k, escaped = _codes(corrected), corrected.obs["escaped"].to_numpy()
    z, shifts = corrected.obsm["z"], corrected.uns["simulation"]["shifts"]
    assert np.mean(k < 0) == pytest.approx(0.2, abs=0.001)
    assert not escaped[k < 0].any()
    n = (k >= 0).sum()
    assert escaped[k >= 0].mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / n))
    for rest in (z[k < 0], z[escaped], (z - shifts[k])[(k >= 0) & ~escaped]):
        np.testing.assert_allclose(rest.mean(0), 0, atol=4.5 / np.sqrt(len(rest)))
        expected = 0.3 + 0.7 * np.eye(6)
        np.testing.assert_allclose(np.cov(rest.T), expected, atol=6 / np.sqrt(len(rest)))


def test_batches_are_partly_confounded(corrected):
    table = corrected.obs.groupby(["perturbation", "batch"], observed=False).size().unstack()
    truth = corrected.uns["simulation"]
    single = (table.loc[truth["perturbations"]] == 0).any(axis=1).to_numpy()
    np.testing.assert_array_equal(single, truth["confounded"])
    assert single.sum() == 6  # a fifth of 30
    assert table.loc["control"].min() / table.loc["control"].sum() == pytest.approx(0.5, abs=0.1)
    free = table.loc[truth["perturbations"][~single]].sum()
    assert free.min() / free.sum() == pytest.approx(0.5, abs=0.05)


def test_numbers_of_cells():
    rng = np.random.default_rng(2)
    cells = draw_cells(rng, np.zeros((400, 2)), 200, CORRECTED)
    sizes = np.bincount(cells.perturbation[cells.perturbation >= 0], minlength=400)
    assert sizes.mean() == pytest.approx(200, abs=4 * 200 * np.sqrt(np.exp(0.25) - 1) / 20)
    assert np.std(np.log(sizes)) == pytest.approx(0.5, abs=0.08)
    exact = simulate_perturbations(**{**SMALL, "n_perturbations": 3, "cells_per_perturbation": [5, 1, 9]})
    names = exact.uns["simulation"]["perturbations"]
    assert exact.obs["perturbation"].value_counts()[names].tolist() == [5, 1, 9]


def _uniform(x, family, rng):
    """Probability integral, randomised over the steps."""
    return family.cdf(x - 1) + rng.random(x.shape) * (family.cdf(x) - family.cdf(x - 1))


def test_counts_are_negative_binomial_around_their_rates(corrected):
    rate, theta = corrected.layers["true_rate"].astype(float), corrected.var["true_dispersion"].to_numpy()
    assert theta.min() > 2
    assert theta.max() < 10
    x, rng = corrected.X.toarray(), np.random.default_rng(0)
    critical = 1.95 / np.sqrt(x.size)  # at 0.1 %
    u = _uniform(x, stats.nbinom(theta, theta / (theta + rate)), rng)
    assert stats.kstest(u.ravel(), "uniform").statistic < critical
    assert stats.kstest(_uniform(x, stats.poisson(rate), rng).ravel(), "uniform").statistic > 5 * critical
    # the variance itself: (x - mu)² has the mean mu + mu² / theta
    ratio = (x - rate) ** 2 / (rate + rate**2 / theta)
    assert ratio.mean() == pytest.approx(1, abs=5 * ratio.std() / np.sqrt(x.size))


def test_counts_of_the_reference_are_poisson(reference):
    x, rate = reference.X.toarray()[:, :5], reference.layers["true_rate"][:, :5].astype(float)
    ratio = (x - rate) ** 2 / rate
    assert ratio.mean() == pytest.approx(1, abs=5 * np.sqrt(2 / x.size))


def test_depths_are_log_normal(corrected):
    library = corrected.obs["true_library"]
    assert library.mean() == pytest.approx(4000, rel=4 * 0.42 / np.sqrt(len(library)))
    assert stats.kstest((np.log(library / 4000) + 0.08) / 0.4, "norm").pvalue > 0.01


def test_batches_shift_genes_by_what_is_asked_for():
    options = {**SMALL, "cells_per_perturbation": 30, "n_genes": 400, "keep_rate": True}
    with_, without = (simulate_perturbations(**options, batch_effect=b) for b in (0.3, 0.0))
    change = np.log(with_.layers["true_rate"].astype(float)) - np.log(without.layers["true_rate"].astype(float))
    codes = with_.obs["batch"].cat.codes.to_numpy()
    shifts = np.stack([change[codes == s].mean(0) for s in range(2)])
    np.testing.assert_allclose(shifts.std(1), 0.3, rtol=0.15)
    assert abs(np.corrcoef(shifts)[0, 1]) < 0.2
    # all else is the same: within a batch a cell's genes move by the same shift, up to its own normalisation
    np.testing.assert_allclose((change - shifts[codes]).std(1), 0, atol=1e-5)


def test_the_network_is_the_one_of_the_reference(reference):
    """Orthonormal maps with leaky ReLUs between, logits of standard deviation one, exponentials."""
    rng = np.random.default_rng(0)
    for n_in, n_out in ((6, 40), (40, 40), (40, 20)):
        w = _perturbed_counts._orthogonal(rng, n_in, n_out)
        assert w.shape == (n_in, n_out)
        product = w @ w.T if n_in <= n_out else w.T @ w
        np.testing.assert_allclose(product, np.eye(min(n_in, n_out)), atol=1e-12)
    cells = draw_cells(rng, np.zeros((3, 6)), 600, REFERENCE)
    drawn = _perturbed_counts.draw_expression(rng, cells, 20, REFERENCE)
    h = cells.z
    for w in drawn.maps[:3]:
        h = np.maximum(h @ w, 0.2 * (h @ w))
    logits = h @ drawn.maps[3]
    parts = np.concatenate([part for _, part in _perturbed_counts._log_weights(drawn, cells)])
    np.testing.assert_allclose(parts, logits / logits.std())
    np.testing.assert_allclose(drawn.log_norm, np.log(np.exp(parts).sum(0)))
    assert [w.shape for w in drawn.maps] == [(6, 40), (40, 40), (40, 40), (40, 20)]


def test_dispersion_changes_the_noise_alone():
    options = {**SMALL, "cells_per_perturbation": 10, "keep_rate": True}
    one, other = (simulate_perturbations(**options, theta=theta) for theta in (np.inf, 3.0))
    np.testing.assert_array_equal(one.layers["true_rate"], other.layers["true_rate"])
    np.testing.assert_array_equal(one.obsm["z"], other.obsm["z"])
    assert (other.var["true_dispersion"] == 3).all()
    assert "true_dispersion" not in one.var


def test_depth_can_be_asked_for_with_a_softmax_over_cells():
    adata = simulate_perturbations(**SMALL, protocol="reference", depth=500)
    assert adata.obs["true_library"].mean() == pytest.approx(500)


def test_same_seed_same_data_and_generators_are_taken():
    options = {**SMALL, "cells_per_perturbation": 10}
    one, two = (simulate_perturbations(**options, random_state=3) for _ in range(2))
    other = simulate_perturbations(**options, random_state=4)
    assert (one.X != two.X).nnz == 0
    assert one.obs.equals(two.obs)
    assert one.shape != other.shape or (one.X != other.X).nnz > 0
    generated = simulate_perturbations(**options, random_state=np.random.default_rng(3))
    assert (generated.X != one.X).nnz == 0


def test_no_cell_is_empty():
    adata = simulate_perturbations(**SMALL, depth=10, theta=0.2, depth_sd=1)
    assert adata.X.sum(1).min() >= 1
    assert adata.X.dtype == np.float32
    assert (adata.X.data == np.rint(adata.X.data)).all()


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata 0.12 on its own default
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_survives_a_round_trip(kind, tmp_path):
    adata = simulate_perturbations(**{**SMALL, "cells_per_perturbation": 5})
    path = tmp_path / f"a.{kind}"
    getattr(adata, f"write_{kind}")(path)
    back = (ad.read_h5ad if kind == "h5ad" else ad.read_zarr)(path)
    assert (back.X != adata.X).nnz == 0
    for name, value in adata.uns["simulation"].items():
        np.testing.assert_array_equal(back.uns["simulation"][name], value)
    np.testing.assert_array_equal(back.obsm["z"], adata.obsm["z"])
    assert back.obs["escaped"].dtype == bool
    assert back.obs["perturbation"].tolist() == adata.obs["perturbation"].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "paper"}, "'reference', 'corrected'"),
        ({"softmax_over": "rows"}, "'cells', 'genes'"),
        ({"n_perturbations": 0}, "`n_perturbations` is 0"),
        ({"n_latent": 2.5}, "`n_latent` is 2.5, but a whole number"),
        ({"shift": -1}, "`shift` is -1"),
        ({"theta": 0}, "`theta` is 0"),
        ({"theta": (3, 2)}, "low, high"),
        ({"theta": (2, np.inf)}, "must be finite"),
        ({"depth": 1}, "`depth` is 1, but a number from 10"),
        ({"control_fraction": 1.0}, "`control_fraction` is 1.0"),
        ({"escaping_fraction": -0.1}, "`escaping_fraction`"),
        ({"n_batches": 0}, "`n_batches` is 0"),
        ({"latent_correlation": 1.0}, "`latent_correlation`"),
        ({"replace_targets": "no"}, "`replace_targets` is 'no'"),
        ({"cells_per_perturbation": [5, 5]}, "or 12 of them"),
        ({"cells_per_perturbation": 0}, "`cells_per_perturbation` is 0"),
        ({"cells_per_perturbation": [5] * 12, "unequal_cells": 0.3}, "leave `unequal_cells` out"),
    ],
)
def test_impossible_wishes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        simulate_perturbations(**{**SMALL, **options})
