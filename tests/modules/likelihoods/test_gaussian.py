"""Normal noise on log-normalised counts against SciPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from modules.small_models import DIMS, NETWORK, all_cells, build, spec, table
from scipy import stats

from scanpy_scvi.modules import Part
from scanpy_scvi.numerics.sparse import to_dense
from scanpy_scvi.training import seeded
from scanpy_scvi.training.start import start_from_data

TOTAL = 50.0


def log_normalised(cells):
    x = to_dense(cells.counts.rows(), DIMS.n_genes).astype(np.float64)
    return np.log1p(TOTAL * x / np.exp(cells.log_total.double().numpy())[:, None])


def decoded(options):
    model, cells = build(spec(likelihood=Part("gaussian", {"total": TOTAL, **options}))), all_cells(table())
    with torch.no_grad():
        if model.likelihood.log_var is not None:
            model.likelihood.log_var.normal_()
        return model, cells, model.decode(model.encode(cells).mean, cells)


@pytest.mark.parametrize("options", [{}, {"noise": "shared"}, {"sd": 0.7}, {"observed_only": True}])
@torch.no_grad()
def test_density_is_that_of_scipy(options):
    model, cells, output = decoded(options)
    sd = model.likelihood.var(output).sqrt().double().numpy()
    y = log_normalised(cells)
    log_p = stats.norm.logpdf(y, output.params.double().numpy(), sd)
    counted = y > 0 if "observed_only" in options else np.ones_like(y, bool)
    expected = -(log_p * counted).sum(1)
    np.testing.assert_allclose(model.likelihood.nll(output, cells.log_total, cells).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"noise": "shared"}, {"sd": 0.7}, {"sd": 0.7, "observed_only": True}])
@torch.no_grad()
def test_ceiling_is_the_density_of_an_exact_reconstruction(options):
    model, cells, output = decoded(options)
    y = torch.from_numpy(log_normalised(cells)).float()
    exact = -model.likelihood.nll(output._replace(params=y), cells.log_total, cells)
    n_observed = float((y > 0).sum(1).float().mean())
    assert model.likelihood.ceiling(n_observed) == pytest.approx(exact.mean().item(), rel=1e-4)


@torch.no_grad()
def test_shares_undo_the_logarithm():
    model, cells, output = decoded({})
    y = torch.from_numpy(log_normalised(cells))
    x = to_dense(cells.counts.rows(), DIMS.n_genes)
    shares = model.likelihood.proportions(output._replace(params=y)).numpy()
    np.testing.assert_allclose(shares, x / x.sum(1, keepdims=True), atol=1e-6)


@torch.no_grad()
def test_counts_that_are_drawn_have_the_mean_and_the_noise_of_the_model():
    """Where shares stay far from zero, the scatter of a gene about its share is s_g in the logarithm."""
    model, cells, output = decoded({"sd": 0.05})
    wide = output._replace(params=output.params * 0 + 5)
    library = torch.full_like(cells.log_total, np.log(1e6))
    with seeded(0):
        drawn = torch.stack([model.likelihood.sample(wide, library, cells) for _ in range(200)]).double()
    shares = drawn / 1e6
    np.testing.assert_allclose(shares.mean(0).numpy(), 1 / DIMS.n_genes, rtol=0.03)
    assert 0.9 < shares.log().std() / (0.05 * np.sqrt(1 - 1 / DIMS.n_genes)) < 1.1


def test_fits_start_at_the_mean_of_each_batch():
    decoder = Part("mlp", {**NETWORK, "output_covariates": True})
    model, data = build(spec(likelihood=Part("gaussian", {"total": TOTAL}), decoder=decoder)), table()
    data = replace(data, log_size_factor=data.log_total)  # as it is where no size factors are given
    start_from_data(model, data)
    cells = all_cells(data)
    y = log_normalised(cells)
    per_batch = np.stack([y[data.batch == b].mean(0) for b in range(DIMS.n_batches)])
    logits = model.decoder.logits
    start = logits.bias.detach().numpy() + logits.covariate_weight.detach().numpy()[:, : DIMS.n_batches].T
    np.testing.assert_allclose(start, per_batch, atol=1e-5)
