from dataclasses import replace

import numpy as np
import pytest
import torch
from modules.small_models import build, spec, table

from scanpy_scvi.posterior import scales
from scanpy_scvi.posterior.scales import Draws, draw_scales, pair_draws, plan_draws
from scanpy_scvi.training import seeded

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    return table()


@pytest.fixture(scope="module")
def model():
    return build(spec())


def test_batches_have_equal_shares_and_cells_come_from_the_group():
    rng = np.random.default_rng(0)
    rows = np.array([3, 8, 11])
    draws = plan_draws(rows, 5000, np.arange(3), rng)
    assert np.bincount(draws.batch).tolist() == [1667, 1667, 1666]
    assert np.bincount(draws.rows)[rows] / 5000 == pytest.approx(1 / 3, abs=0.03)
    assert plan_draws(rows, 7, None, rng).batch is None


@pytest.mark.parametrize("batch", [None, np.array([2, 0, 0, 1])])
def test_a_draw_is_the_decoded_draw_of_its_cell(batch, data, model):
    rows = np.array([5, 5, 30, 2])
    got = draw_scales(model, data, Draws(rows, batch), random_state=3, device=CPU)
    cells = data.take(rows)
    with torch.no_grad(), seeded(3):
        z = model.encode(cells).sample()
        cells = cells if batch is None else replace(cells, batch=torch.from_numpy(batch))
        expected = model.likelihood.proportions(model.decode(z, cells))
    np.testing.assert_allclose(got, expected.T, rtol=5e-3)  # the product over genes may be in bfloat16
    np.testing.assert_allclose(got.sum(0), 1, rtol=1e-5)


def test_every_draw_is_filled_in_chunks_and_repeats_with_its_seed(data, model, monkeypatch):
    monkeypatch.setattr(scales, "CHUNK", 8)
    draws = plan_draws(np.arange(37), 21, np.arange(3), np.random.default_rng(0))
    first, again, other = (draw_scales(model, data, draws, random_state=seed, device=CPU) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    filled = draw_scales(model, data, draws, random_state=1, device=CPU, out=other.copy())
    np.testing.assert_array_equal(filled, first)
    assert (first != other).any(0).all()
    np.testing.assert_allclose(first.sum(0), 1, rtol=1e-5)


def test_partners_are_allowed_and_of_the_same_batch():
    first = Draws(np.arange(9), np.repeat([0, 1, 2], 3))
    second = Draws(np.arange(6), np.repeat([0, 1, 2], 2))
    allowed = np.array([True, False, True, True, False, True])
    assert pair_draws(first, second, allowed).tolist() == [0, 0, 0, 2, 3, 2, 5, 5, 5]
    assert pair_draws(first._replace(batch=None), second, allowed).tolist() == [0, 2, 3, 5, 0, 2, 3, 5, 0]


def test_a_cell_that_the_model_cannot_decode_is_named(data, model):
    rows = data.continuous.copy()
    rows[7] = np.inf
    with pytest.raises(FloatingPointError, match="cell number 7"):
        draw_scales(model, replace(data, continuous=rows), Draws(np.array([1, 7]), None), random_state=0, device=CPU)
