from dataclasses import replace

import numpy as np
import pytest
import torch
from modules.small_models import NETWORK, PLAIN, all_cells, build, spec, table

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.cells import covariate_design
from scanpy_scvi.training.start import start_from_data


@torch.no_grad()
def test_logits_are_a_linear_map_of_the_hidden_layer_it_hands_out():
    model, cells = build(spec()), all_cells(table())
    part, z = model.decoder, torch.randn(cells.n_cells, 3)
    output = part(z, cells)
    torch.testing.assert_close(output.hidden, part.mlp(z, covariate_design(cells, part.dims)))
    torch.testing.assert_close(output.params, output.hidden @ part.logits.weight.T + part.logits.bias)
    rho = model.likelihood.proportions(output)
    torch.testing.assert_close(rho.sum(1), torch.ones(cells.n_cells))
    torch.testing.assert_close(rho.log(), torch.log_softmax(output.params, 1))


@pytest.mark.parametrize("inject", [True, False])
@torch.no_grad()
def test_batch_changes_the_output(inject):
    part = build(spec(decoder=Part("mlp", {**NETWORK, "inject_covariates": inject}))).decoder
    cells, z = all_cells(table()), torch.zeros(37, 3)
    other = replace(cells, batch=(cells.batch + 1) % 3)
    assert not torch.allclose(part(z, cells).params, part(z, other).params)


@torch.no_grad()
def test_start_at_the_average_cell():
    """With a hidden layer that says nothing, the proportions are those of all counts together."""
    data = table(400, PLAIN, depth=2_000.0)
    model = build(spec(PLAIN))
    model.decoder.logits.weight.zero_()
    start_from_data(model, data)
    totals = np.bincount(data.counts.indices, data.counts.data, minlength=23)
    rho = model.likelihood.proportions(model.decoder(torch.randn(400, 3), all_cells(data)))
    np.testing.assert_allclose(rho, np.broadcast_to(totals / totals.sum(), (400, 23)), rtol=0.02)
