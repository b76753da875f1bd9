"""Denoised expression: which genes, batches, draws and library sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from fingerprint import fingerprint
from scipy import stats

import scanpy_scvi as sv
from scanpy_scvi.store import load


def expression(adata, **options):
    return sv.tl.normalized_expression(adata, inplace=False, **options)


@pytest.fixture(scope="module")
def masked(simulated, quick_fit):
    """A fit of two thirds of the genes; do not change it."""
    adata = simulated.copy()
    quick_fit(adata, mask_var=np.arange(adata.n_vars) % 3 > 0)
    return adata


def by_hand(adata, batch):
    """Softmax of the decoder's logits at the stored mean of z, times 10,000."""
    fitted = load(adata, "scvi")
    cells = fitted.read(adata).take(np.arange(adata.n_obs))
    codes = torch.full_like(cells.batch, batch)
    with torch.no_grad():
        logits = fitted.model.decode(torch.from_numpy(adata.obsm["X_scvi"]), replace(cells, batch=codes)).params
    share = np.exp(logits.double().numpy())
    return 1e4 * share / share.sum(1, keepdims=True)


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_against_a_computation_by_hand(likelihood, adata, quick_fit):
    quick_fit(adata, likelihood=likelihood)
    weights = adata.obs["batch"].value_counts(normalize=True).sort_index()
    expected = sum(w * by_hand(adata, b) for b, w in enumerate(weights))
    np.testing.assert_allclose(expression(adata), expected, rtol=1e-4)
    np.testing.assert_allclose(adata.layers["scvi_normalized"], expected, rtol=1e-4)
    np.testing.assert_allclose(expression(adata, transform_batch="batch_1"), by_hand(adata, 1), rtol=1e-4)


def test_table_has_the_names_of_cells_and_modelled_genes(masked):
    table = expression(masked)
    assert table.index.equals(masked.obs_names)
    assert table.columns.tolist() == masked.var_names[masked.var["scvi_modelled"]].tolist()
    assert (table.dtypes == np.float32).all()
    np.testing.assert_allclose(table.sum(axis=1), 1e4, rtol=1e-3)


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Index])
def test_genes_come_in_the_order_asked_for(kind, masked):
    names = ["gene_50", "gene_2", "gene_98", "gene_2"]
    table = expression(masked, genes=kind(names))
    assert table.columns.tolist() == names
    assert np.array_equal(table, expression(masked)[names])


def test_one_gene_as_a_string(masked):
    assert expression(masked, genes="gene_5").columns.tolist() == ["gene_5"]


@pytest.mark.parametrize(("genes", "named"), [(["gene_1", "Gapdh"], "Gapdh"), (["gene_0", "gene_1"], "gene_0")])
def test_genes_that_are_not_modelled_are_named(genes, named, masked):
    with pytest.raises(KeyError, match=rf"'{named}' are not modelled.*scvi_modelled"):
        expression(masked, genes=genes)


def test_written_to_a_layer_with_the_other_genes_missing(masked):
    adata = masked.copy()
    names = ["gene_50", "gene_2"]
    assert sv.tl.normalized_expression(adata, genes=names, key_added="two") is None
    layer = adata.to_df(layer="two")
    assert np.array_equal(layer[names], expression(masked, genes=names))
    assert layer.drop(columns=names).isna().all(axis=None)
    assert layer.to_numpy().dtype == np.float32
    del adata.layers["two"]
    assert fingerprint(adata) == fingerprint(masked)


def test_the_default_layer_is_that_of_the_fit(masked):
    adata = masked.copy()
    del adata.layers["scvi_normalized"]
    sv.tl.normalized_expression(adata)
    assert fingerprint(adata.layers["scvi_normalized"]) == fingerprint(masked.layers["scvi_normalized"])


@pytest.mark.parametrize(
    ("size", "named"),
    [
        (1e4, "counts per 10,000"),
        (1.0, "counts per 1"),
        (0.5, "counts per 0.5"),
        ("latent", "counts at the cell's own"),
    ],
)
def test_the_layer_of_the_fit_says_its_scale(masked, size, named):
    """And a report decodes on that scale; a table or another layer leaves what is said of this one."""
    adata = masked.copy()
    assert adata.uns["scvi"]["denoised_scale"] == "counts per 10,000"
    expression(adata, library_size=7.0)
    sv.tl.normalized_expression(adata, library_size=7.0, key_added="other")
    assert adata.uns["scvi"]["denoised_scale"] == "counts per 10,000"
    sv.tl.normalized_expression(adata, library_size=size)
    assert adata.uns["scvi"]["denoised_scale"].startswith(named)
    assert sv.tl.verify(adata)["level"] == "ok"
    assert masked.uns["scvi"]["denoised_scale"] == "counts per 10,000"


@pytest.mark.parametrize(("size", "named"), [(1e4, "counts per 10,000"), ("latent", "counts at the cell's own")])
def test_a_layer_of_roots_says_so(masked, size, named):
    adata = masked.copy()
    sv.tl.normalized_expression(adata, statistic="root", library_size=size)
    assert adata.uns["scvi"]["denoised_scale"].startswith(f"squared mean roots of {named}")
    assert sv.tl.verify(adata)["level"] == "ok"
    sv.tl.normalized_expression(adata)
    assert adata.uns["scvi"]["denoised_scale"] == "counts per 10,000"


@pytest.mark.parametrize("said", ["counts per -1", "counts per nan", "counts per inf", "counts", "logs", 3])
def test_a_scale_that_cannot_be_read_is_reported(masked, said):
    adata = masked.copy()
    adata.uns["scvi"] = {**adata.uns["scvi"], "denoised_scale": said}
    found = {f["topic"]: f for f in sv.tl.verify(adata)["findings"]}["normalized"]
    assert found["level"] == "warning"
    assert "denoised_scale" in found["message"]


def test_a_table_leaves_a_view_a_view_and_a_layer_makes_it_an_object(masked):
    view = masked[3:30]
    table = expression(view)
    assert view.is_view
    np.testing.assert_allclose(table, expression(masked).iloc[3:30], rtol=1e-4)
    sv.tl.normalized_expression(view)
    assert not view.is_view


def test_batches(masked):
    first, second = (expression(masked, transform_batch=b) for b in ("batch_0", "batch_1"))
    assert not np.allclose(first, second, rtol=1e-3)
    for both in (["batch_0", "batch_1"], ("batch_1", "batch_0"), np.array(["batch_0", "batch_1"])):
        np.testing.assert_allclose(expression(masked, transform_batch=both), (first + second) / 2, rtol=1e-4)
    in_first = (masked.obs["batch"] == "batch_0").to_numpy()[:, None]
    np.testing.assert_allclose(
        expression(masked, transform_batch="observed"), np.where(in_first, first, second), rtol=1e-4
    )


def test_a_batch_named_twice_counts_once(masked):
    once = expression(masked, transform_batch=["batch_0"])
    assert expression(masked, transform_batch=["batch_0", "batch_0"]).equals(once)


@pytest.mark.parametrize("batch", [2, [2], ["2"], np.int64(2), [np.int64(2), np.int64(2)]])
def test_batches_that_are_numbers(batch, adata, quick_fit):
    adata.obs["batch"] = adata.obs["batch"].cat.codes + 1
    quick_fit(adata)
    assert expression(adata, transform_batch=batch).equals(expression(adata, transform_batch="2"))


@pytest.mark.parametrize("batch", ["batch_7", ["batch_0", "batch_7"]])
def test_unknown_batches_are_named(batch, masked):
    with pytest.raises(ValueError, match=r"`transform_batch` has 'batch_7'.*knows the batches 'batch_0', 'batch_1'"):
        expression(masked, transform_batch=batch)


def test_no_batch_at_all(masked, adata, quick_fit):
    with pytest.raises(ValueError, match="`transform_batch`"):
        expression(masked, transform_batch=[])
    quick_fit(adata, None)
    with pytest.raises(ValueError, match=r"`transform_batch`.*without `batch_key`"):
        expression(adata, transform_batch="batch_0")
    assert expression(adata, transform_batch="observed").equals(expression(adata))


def test_draws_are_seeded(masked):
    assert expression(masked, n_samples=3).equals(expression(masked, n_samples=3))
    assert not expression(masked, n_samples=3).equals(expression(masked, n_samples=3, random_state=1))
    assert not expression(masked, n_samples=3).equals(expression(masked))


def test_draws_have_their_mean(masked):
    few = [expression(masked, n_samples=1, random_state=seed).to_numpy() for seed in range(8)]
    many = expression(masked, n_samples=200).to_numpy()
    spread = np.std(few, axis=0)
    error = np.abs(np.mean(few, axis=0) - many) / np.maximum(spread, 1e-3 * many)
    assert np.median(error) < 3 / np.sqrt(8)
    np.testing.assert_allclose(many.sum(1), 1e4, rtol=1e-3)


def test_library_sizes(masked):
    base = expression(masked)
    np.testing.assert_allclose(expression(masked, library_size=1), base / 1e4, rtol=1e-5)
    totals = masked.X[:, masked.var["scvi_modelled"].to_numpy()].toarray().sum(1)
    expected = base.mul(totals / 1e4, axis=0)
    np.testing.assert_allclose(expression(masked, library_size="latent"), expected, rtol=1e-4)


def test_a_latent_library_scales_by_its_posterior_mean(adata, quick_fit):
    quick_fit(adata, library="latent", max_epochs=20, batch_size=32, learning_rate=0.02)
    totals = expression(adata, library_size="latent").sum(axis=1)
    observed = adata.X.toarray().sum(1)
    assert np.corrcoef(np.log(totals), np.log(observed))[0, 1] > 0.5
    assert 0.7 < totals.mean() / observed.mean() < 1.3


def test_size_factors_scale_expected_counts(adata, quick_fit):
    adata.obs["factor"] = 0.5 + np.arange(adata.n_obs) % 7
    quick_fit(adata, size_factor_key="factor")
    totals = expression(adata, library_size="latent").sum(axis=1)
    np.testing.assert_allclose(totals / totals.mean(), adata.obs["factor"] / adata.obs["factor"].mean(), rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"likelihood": "poisson"}, {"dispersion": "gene-cell"}])
def test_roots_are_those_of_counts_with_the_means_of_the_table(options, adata, quick_fit):
    """By the sum over counts; where roots of counts vary, the square of their mean is below the mean."""
    quick_fit(adata, **options)
    means = expression(adata, transform_batch="observed").to_numpy()[:5, :7]
    roots = expression(adata, transform_batch="observed", statistic="root").to_numpy()[:5, :7]
    model = load(adata, "scvi").model
    cells = load(adata, "scvi").read(adata).take(np.arange(5))
    with torch.no_grad():
        log_theta = model.likelihood.log_theta(model.decode(model.encode(cells).mean, cells), cells)
    theta = np.full((5, 7), 1e8)
    if log_theta is not None:
        theta = np.broadcast_to(log_theta.detach().exp().numpy(), (5, adata.n_vars))[:, :7]
    k = np.arange(100_000)
    expected = [
        [(np.sqrt(k) * stats.nbinom.pmf(k, t, t / (t + m))).sum() ** 2 for m, t in zip(*row, strict=True)]
        for row in zip(means, theta, strict=True)
    ]
    np.testing.assert_allclose(roots, expected, rtol=2e-3)
    assert (roots < means).all()


REFUSED = {
    "n_samples": (0, 1.5, "3", True),
    "library_size": (0, -1, np.nan, np.inf, "total"),
    "statistic": ("median", None),
    "random_state": (-1, 0.5, "a"),
    "key_added": ("a/b", "", 3),
    "device": ("toaster",),
}


@pytest.mark.parametrize(("argument", "value"), [(name, v) for name, values in REFUSED.items() for v in values])
def test_bad_options(argument, value, masked):
    before = fingerprint(masked)
    with pytest.raises(ValueError, match=f"`{argument}` is {value!r}"):
        sv.tl.normalized_expression(masked, **{argument: value})
    assert fingerprint(masked) == before


def test_cells_that_the_model_has_not_seen(masked):
    other = sv.datasets.simulate(n_cells=25, n_genes=100, density=0.3, random_state=7)
    other.uns["scvi"] = masked.uns["scvi"]
    table = expression(other)
    assert table.shape == (25, 66)
    assert np.isfinite(table).all(axis=None)
    np.testing.assert_allclose(table.sum(axis=1), 1e4, rtol=1e-3)
