"""Clusters from codes of hidden units."""

from dataclasses import replace

import numpy as np
import torch
from modules.small_models import DIMS, all_cells, build, spec, table

from scanpy_scvi.modules import Part
from scanpy_scvi.posterior.codes import clusters_of, code_clusters, hidden_codes

CODES = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 1], [0, 0, 0], [0, 1, 1], [1, 0, 0], [1, 1, 1]], bool)


def test_codes_with_enough_cells_are_clusters_the_largest_first():
    found = code_clusters(CODES, 2)
    assert found.codes.tolist() == [[False, True, True], [True, False, False]]
    assert found.of_cells.tolist() == [1, 0, 0, -1, 0, 1, -1]
    assert code_clusters(CODES, 1).of_cells.tolist() == [1, 0, 0, 2, 0, 1, 3]
    none = code_clusters(CODES, 4)
    assert none.codes.shape == (0, 3)
    assert (none.of_cells == -1).all()


def test_known_codes_are_found_again():
    found = code_clusters(CODES, 2)
    np.testing.assert_array_equal(clusters_of(CODES, found.codes), found.of_cells)
    assert clusters_of(CODES[::-1][:2], found.codes).tolist() == [-1, 1]
    assert clusters_of(CODES, found.codes[:0]).tolist() == [-1] * 7


@torch.no_grad()
def test_a_code_is_which_units_are_on_and_does_not_know_the_batch():
    model = build(spec(decoder=Part("mlp", {"n_latent": 3, "n_hidden": 8, "n_layers": 2, "norm": "none"})))
    z = np.random.default_rng(0).normal(size=(37, 3)).astype(np.float32) * 3
    codes = hidden_codes(model, z, batch=1)
    assert codes.shape == (37, 8)
    assert codes.any()
    assert not codes.all()
    data = table(37, DIMS)
    cells = all_cells(data)
    plain = torch.zeros_like(cells.batch)
    as_decoded = replace(
        cells, batch=plain + 1, categorical=torch.zeros_like(cells.categorical), continuous=0 * cells.continuous
    )
    np.testing.assert_array_equal(codes, (model.decode(torch.from_numpy(z), as_decoded).hidden > 1e-6).numpy())
