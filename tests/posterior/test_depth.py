"""How deep cells are taken to be: the regression, and the scale of a new batch's counts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from modules.small_models import DIMS, NETWORK, all_cells, build, spec, table, table_of

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.growth import Growth, grow
from scanpy_scvi.posterior.depth import MOST, depth_of_states, match_depth

CPU = torch.device("cpu")
ENCODED = Part("mlp", {**NETWORK, "dropout_rate": 0.1, "encode_covariates": True})
ALL = np.arange(DIMS.n_genes)


def grown():
    model_spec = spec(encoder=ENCODED)
    to = Growth(DIMS, replace(DIMS, n_batches=4), (np.ones(3), np.ones(4), np.ones(1)), (np.array([3.0, 4.0]),))
    return grow(model_spec, build(model_spec), to).model


def new_cells(n_cells=300):
    data = table(n_cells)
    return replace(data, batch=np.full(n_cells, 3))


def scale(model):
    return model.encoder.log_input_scale.tolist()


def test_depth_is_found_where_it_is_linear():
    z = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    depth = depth_of_states(z, 7 + z @ np.array([0.5, -1, 0]))
    np.testing.assert_allclose(depth, [7, 0.5, -1, 0], atol=1e-6)


def test_fewer_cells_than_dimensions_will_do():
    z = np.ones((2, 5), np.float32)
    depth = depth_of_states(z, np.array([4.0, 6.0]))
    assert depth[0] + depth[1:].sum() == pytest.approx(5)


def test_where_depth_is_one_for_all_states_the_scale_is_the_mean_difference():
    model, cells = grown(), new_cells()
    match_depth(model, cells, 3, np.array([6.0, 0, 0, 0]), present=ALL, device=CPU)
    assert scale(model) == [0, 0, 0, pytest.approx(6 - cells.log_total.mean(), abs=1e-5)]


def test_the_scale_is_a_fixed_point():
    """log c = mean(a + b z - log l), with z from that c."""
    model, cells = grown(), new_cells()
    depth = np.array([5.0, 0.2, -0.1, 0.1])
    match_depth(model, cells, 3, depth, present=ALL, device=CPU)
    with torch.no_grad():
        z = model.encode(all_cells(cells)).mean.double().numpy()
    assert scale(model)[3] == pytest.approx((depth[0] + z @ depth[1:] - cells.log_total).mean(), abs=0.01)


def test_genes_that_are_not_there_do_not_count():
    """If the query has 10 of 23 genes, depth is compared over these: in expectation their share of the total."""
    model, cells = grown(), new_cells()
    dense = np.zeros((cells.n_cells, DIMS.n_genes))
    dense[np.repeat(np.arange(cells.n_cells), np.diff(cells.counts.indptr)), cells.counts.indices] = cells.counts.data
    dense[:, 10:] = 0
    dense[dense.sum(1) == 0, 0] = 1
    few = replace(table_of(dense, DIMS), batch=cells.batch)
    match_depth(model, few, 3, np.array([6.0, 0, 0, 0]), present=ALL[:10], device=CPU)
    with torch.no_grad():
        batch = all_cells(few)
        output = model.decode(model.encode(batch).mean, batch)
        share = model.likelihood.expected_shares(output)[:, :10].sum(1).double().log().mean().item()
    assert scale(model)[3] == pytest.approx(6 + share - few.log_total.mean(), abs=0.01)


@pytest.mark.parametrize("way", [1, -1])
def test_the_scale_has_a_limit(way):
    model = grown()
    match_depth(model, new_cells(), 3, np.array([50.0 * way, 0, 0, 0]), present=ALL, device=CPU)
    assert scale(model)[3] == pytest.approx(way * MOST)
