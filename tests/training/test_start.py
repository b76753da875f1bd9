"""Where a fit starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scanpy_scvi.datasets import simulate
from scanpy_scvi.modules import ModelSpec, Part
from scanpy_scvi.store.covariates import ColumnKeys
from scanpy_scvi.store.read import read
from scanpy_scvi.training import seeded
from scanpy_scvi.training.start import (
    SHRINKAGE,
    batch_log_means,
    batch_means_of_log1p,
    principal_axes,
    start_from_data,
    start_penalties,
)

NETWORK = {"n_latent": 3, "n_hidden": 16, "n_layers": 1, "norm": "batch"}


@pytest.fixture(scope="module")
def adata():
    return simulate(n_cells=200, n_genes=60, n_batches=3, density=0.4)


@pytest.fixture(scope="module")
def data(adata):
    return read(adata, ColumnKeys(batch_key="batch"), layer=None, mask_var=None)


def spec_of(data):
    return ModelSpec(
        dims=data.dims,
        encoder=Part("mlp", {**NETWORK, "dropout_rate": 0.0, "encode_covariates": True}),
        library=Part("observed"),
        decoder=Part("mlp", {**NETWORK, "output_covariates": True}),
        likelihood=Part("nb"),
        prior=Part("normal"),
    )


def model(data):
    with seeded(0):
        built = spec_of(data).build()
        start_from_data(built, data.table)
    return built


def by_batch(adata, data, values):
    return np.stack([values[data.table.batch == b].sum(0) for b in range(3)])


def test_shares_are_shrunk_towards_the_overall_ones(adata, data):
    totals = by_batch(adata, data, adata.X.toarray().astype(float))
    overall = (totals.sum(0) + 0.5) / (totals.sum() + 0.5 * 60)
    expected = totals.sum(1, keepdims=True) * overall
    shares = overall * (totals + SHRINKAGE) / (expected + SHRINKAGE)
    found = np.exp(batch_log_means(data.table).astype(float))
    np.testing.assert_allclose(found, shares / shares.sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


def test_means_of_log1p(adata, data):
    sums = by_batch(adata, data, np.log1p(adata.X.toarray().astype(float)))
    expected = sums / np.bincount(data.table.batch)[:, None]
    np.testing.assert_allclose(batch_means_of_log1p(data.table), expected, rtol=1e-5)


def test_decoder_starts_at_the_average_cell_of_each_batch(data):
    """Where the hidden layers say nothing, each batch is decoded to its own mean proportions."""
    built = model(data)
    with torch.no_grad():
        built.decoder.logits.weight.zero_()
        built.eval()
        cells = data.table.take(np.arange(data.table.n_cells))
        rho = built.likelihood.proportions(built.decode(torch.zeros(cells.n_cells, 3), cells))
    np.testing.assert_allclose(rho.numpy(), np.exp(batch_log_means(data.table))[data.table.batch], rtol=1e-4)


def test_encoder_starts_with_the_batches_centred(data):
    """The first layer has the same mean over cells in every batch, whatever its random weights."""
    linear = model(data).encoder.mlp.blocks[0].linear
    x = data.table.take(np.arange(data.table.n_cells)).counts.log1p()
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(data.table.batch)).float()
    with torch.no_grad():
        centred, raw = linear(x, one_hot).numpy(), (x @ linear.weight.T).numpy()
    spread = np.ptp([centred[data.table.batch == b].mean(0) for b in range(3)], axis=0)
    assert spread.max() < 1e-5
    assert np.ptp([raw[data.table.batch == b].mean(0) for b in range(3)], axis=0).max() > 1e-3


@pytest.mark.parametrize("n", [3, 59])
def test_principal_axes_are_those_of_log_normalised_counts(n, adata, data):
    x = adata.X.toarray().astype(float)
    level = np.median(np.log(x.sum(1)))
    y = np.log1p(x / x.sum(1, keepdims=True) * np.exp(level))
    expected = np.linalg.svd(y - y.mean(0), full_matrices=False)[2][:n]
    with seeded(0):
        axes = principal_axes(data.table, n)
    assert axes.total == pytest.approx(np.exp(level), rel=1e-5)
    assert axes.weights.shape == (60, n)
    np.testing.assert_allclose(axes.weights.T @ axes.weights, np.eye(n), atol=1e-5)
    np.testing.assert_allclose(np.abs(expected[:3] @ axes.weights[:, :3].numpy()), np.eye(3), atol=0.02)
    of_ours, of_theirs = ((y - y.mean(0)) @ w for w in (axes.weights.numpy(), expected.T))
    assert of_ours.var() == pytest.approx(of_theirs.var(), rel=1e-2)  # the search is not exact


def test_there_are_no_more_axes_than_genes(data):
    with seeded(0):
        assert principal_axes(data.table, 100).weights.shape == (60, 60)


def test_penalties_get_the_axes_that_they_want(data):
    built = model(data)
    state = torch.get_rng_state()
    start_penalties(built, data.table, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)  # without penalties a fit is what it was
    with seeded(0):
        penalties = (Part("mmd"), Part("tsne", {"n_pcs": 4}))
        built = ModelSpec(**{**vars(spec_of(data)), "penalties": penalties}).build()
        start_penalties(built, data.table, torch.device("cpu"))
    assert built.penalties[1].axes.shape == (60, 4)
