from dataclasses import replace

import numpy as np
import pytest
import torch
from modules.small_models import NETWORK, all_cells, build, spec, table

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.encoders.moments import VAR_FLOOR


def encoder(**options):
    return build(spec(encoder=Part("mlp", {**NETWORK, "dropout_rate": 0.1, **options}))).encoder


def moved(cells):
    """The same counts in other batches, with other covariates."""
    return replace(
        cells,
        batch=(cells.batch + 1) % 3,
        categorical=(cells.categorical + 1) % torch.tensor([4, 1]),
        continuous=-cells.continuous,
    )


@torch.no_grad()
def test_posterior_is_a_linear_map_of_the_last_hidden_layer_of_log_counts():
    data = table()
    cells, part = all_cells(data), encoder()
    x = np.zeros((data.n_cells, data.n_genes), np.float32)
    x[np.repeat(np.arange(data.n_cells), np.diff(data.counts.indptr)), data.counts.indices] = data.counts.data
    h = part.mlp(torch.from_numpy(np.log1p(x)), torch.zeros(len(x), 0))
    mean, var = part(cells)
    torch.testing.assert_close(mean, h @ part.mean.weight.T + part.mean.bias)
    torch.testing.assert_close(var, torch.exp(h @ part.log_var.weight.T + part.log_var.bias) + 1e-4)


@torch.no_grad()
def test_variance_has_a_floor():
    part = encoder()
    part.log_var.bias.fill_(-200)
    assert torch.equal(part(all_cells(table())).var, torch.full((37, 3), VAR_FLOOR))


@pytest.mark.parametrize("encode", [True, False])
@torch.no_grad()
def test_covariates_enter_only_if_asked(encode):
    part, cells = encoder(encode_covariates=encode), all_cells(table())
    same = torch.equal(part(cells).mean, part(moved(cells)).mean)
    assert same != encode


@torch.no_grad()
def test_dropout_acts_in_training_alone():
    part, cells = encoder(dropout_rate=0.5), all_cells(table())
    assert torch.equal(part(cells).mean, part(cells).mean)
    part.train()
    assert not torch.equal(part(cells).mean, part(cells).mean)


@torch.no_grad()
def test_a_batch_with_a_scale_is_encoded_as_if_it_were_so_deep():
    """Batch 2 with log c = log 3 is where a plain encoder puts three times its counts; the others keep their bits."""
    plain, scaled = encoder(encode_covariates=True), encoder(encode_covariates=True, scale_input=True)
    scaled.load_state_dict(plain.state_dict() | {"log_input_scale": torch.zeros(3)})
    scaled.set_log_input_scale(2, float(np.log(3)))
    cells = all_cells(table())
    deeper = replace(cells, counts=cells.counts._replace(data=3 * cells.counts.data))
    is_scaled = cells.batch == 2
    assert torch.equal(scaled(cells).mean[~is_scaled], plain(cells).mean[~is_scaled])
    torch.testing.assert_close(scaled(cells).mean[is_scaled], plain(deeper).mean[is_scaled])
    assert torch.equal(scaled.input_scale(cells) == 1, ~is_scaled)


def test_without_scales_there_is_nothing_to_store_or_to_set():
    part = encoder()
    part.set_log_input_scale(0, 1.0)
    assert part.input_scale(all_cells(table())) is None
    assert "log_input_scale" not in part.state_dict()
