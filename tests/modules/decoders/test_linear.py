from dataclasses import replace

import numpy as np
import pytest
import torch
from modules.small_models import DIMS, PLAIN, all_cells, build, spec, table

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.cells import covariate_design
from scanpy_scvi.training.start import start_from_data

LINEAR = Part("linear", {"n_latent": 3})


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("dims", [DIMS, PLAIN], ids=["covariates", "plain"])
@torch.no_grad()
def test_log_proportions_are_linear_in_the_latent_state_and_covariates(dims, train):
    """log rho less its mean over genes is W z + V s + b, each centred over genes; in training as in evaluation."""
    model = build(spec(dims, decoder=LINEAR)).train(train)
    cells, z = all_cells(table(dims=dims)), torch.randn(37, 3)
    linear = model.decoder.logits
    weights = np.c_[linear.weight.double(), np.zeros((dims.n_genes, 0))]
    inputs = z.double().numpy()
    if linear.covariate_weight is not None:
        weights = np.c_[weights, linear.covariate_weight.double()]
        inputs = np.c_[inputs, covariate_design(cells, dims).double()]
    expected = inputs @ (weights - weights.mean(0)).T + (linear.bias - linear.bias.mean()).double().numpy()
    log_rho = model.likelihood.proportions(model.decode(z, cells)).double().log().numpy()
    np.testing.assert_allclose(log_rho - log_rho.mean(1, keepdims=True), expected, atol=2e-6)


@torch.no_grad()
def test_hidden_is_the_latent_state_itself():
    model, z = build(spec(decoder=LINEAR)), torch.randn(37, 3)
    output = model.decode(z, all_cells(table()))
    assert output.hidden is z
    assert model.decoder.n_hidden == 3
    assert model.decoder.loadings().shape == (23, 3)


@torch.no_grad()
def test_centring_changes_the_weights_and_not_the_proportions():
    model, cells, z = build(spec(decoder=LINEAR)), all_cells(table()), torch.randn(37, 3)
    before = model.likelihood.proportions(model.decode(z, cells))
    assert model.decoder.loadings().mean(0).abs().max() > 1e-2
    model.decoder.centre()
    for tensor in (model.decoder.loadings(), model.decoder.logits.covariate_weight, model.decoder.logits.bias):
        np.testing.assert_allclose(tensor.mean(0), 0, atol=1e-7)
    torch.testing.assert_close(model.likelihood.proportions(model.decode(z, cells)), before)


@torch.no_grad()
def test_starts_at_the_average_cell_of_each_batch():
    dims = replace(PLAIN, n_batches=3)
    data = table(600, dims, depth=2_000.0)
    model = build(spec(dims, decoder=LINEAR))
    start_from_data(model, data)
    rho = model.likelihood.proportions(model.decode(torch.zeros(600, 3), all_cells(data)))
    for batch in range(3):
        rows = np.flatnonzero(data.batch == batch)
        cells = data.take(rows).counts
        totals = np.bincount(cells.indices, cells.data, minlength=23)
        share = totals / totals.sum()
        np.testing.assert_allclose(rho[rows], np.broadcast_to(share, (len(rows), 23)), rtol=0.02)


@torch.no_grad()
def test_the_prior_of_the_loadings_is_normal():
    """Its price is the negative log density, up to what does not depend on the loadings."""
    part = build(spec(decoder=Part("linear", {"n_latent": 3, "loadings_sd": 0.5}))).decoder
    prior = torch.distributions.Normal(0.0, 0.5)
    expected = (prior.log_prob(torch.zeros(23, 3)) - prior.log_prob(part.loadings())).sum()
    torch.testing.assert_close(part.penalty(), expected)
    assert build(spec(decoder=LINEAR)).decoder.penalty() is None
