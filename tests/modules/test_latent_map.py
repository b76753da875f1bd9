import pytest
import torch
from modules.small_models import all_cells, spec, table

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.latent_map import LatentMap
from scanpy_scvi.training import seeded

NETWORK = {"n_hidden": 8, "n_layers": 2, "norm": "batch", "n_latent": 3}


@pytest.fixture
def model():
    with seeded(0):
        return spec(encoder=Part("mlp", {**NETWORK, "dropout_rate": 0.1})).build().float().eval()


def some_map(*, permutation=False):
    with seeded(1):
        matrix = torch.randn(3, 3)
        if permutation:
            matrix = torch.eye(3)[[2, 0, 1]] * torch.tensor([2.0, -1.0, 0.5])
        return LatentMap(matrix, torch.randn(3))


def test_means_are_mapped_and_decode_to_the_same(model):
    cells, mapped = all_cells(table()), some_map()
    before = model.encode(cells).mean
    decoded = model.decode(before, cells).params
    model.encoder.map_latent(mapped)
    model.decoder.map_latent(mapped)
    after = model.encode(cells).mean
    torch.testing.assert_close(after, (before - mapped.centre) @ mapped.matrix, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.decode(after, cells).params, decoded, rtol=1e-4, atol=1e-4)


def test_variances_of_a_scaled_permutation_are_exact(model):
    cells, mapped = all_cells(table()), some_map(permutation=True)
    before = model.encode(cells).var
    model.encoder.map_latent(mapped)
    torch.testing.assert_close(model.encode(cells).var, before @ mapped.matrix.square(), rtol=1e-3, atol=1e-3)


def test_variances_of_any_map_are_those_of_its_diagonal_where_they_do_not_vary(model):
    cells, mapped = all_cells(table()), some_map()
    with torch.no_grad():
        model.encoder.log_var.weight.zero_()
    before = model.encode(cells).var
    model.encoder.map_latent(mapped)
    torch.testing.assert_close(model.encode(cells).var, before @ mapped.matrix.square(), rtol=1e-3, atol=1e-3)
