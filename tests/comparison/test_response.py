"""Nothing of the held-out cells is seen, and the simple predictions are what they are said to be."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from response_data import CONDITION, CONTROL, STIMULATED, TYPE, hold_out
from response_prediction import score
from response_systems import Run, between, gene_space, nothing, within
from scipy import sparse

from scanpy_scvi.posterior.shifts import Sides, resampled

TYPES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def cells():
    """Three types, 60 genes; the condition brings the first ten to the fourfold in all of them."""
    rng = np.random.default_rng(0)
    types, stimulated = np.repeat(np.arange(3), 80), np.tile(np.arange(2), 120)
    rates = rng.gamma(2, 1, (3, 60))[types]
    rates[:, :10] *= 1 + 3 * stimulated[:, None]
    obs = {TYPE: np.array(TYPES)[types], CONDITION: np.where(stimulated, STIMULATED, CONTROL)}
    frame = pd.DataFrame(obs, index=[str(i) for i in range(240)])
    return ad.AnnData(sparse.csr_matrix(rng.poisson(rates).astype(np.float32)), obs=frame)


@pytest.fixture
def task(cells):
    return hold_out(cells, "b", 40)


def test_held_out_cells_have_no_part_in_the_task(cells, task):
    away = ((cells.obs[TYPE] == "b") & (cells.obs[CONDITION] == STIMULATED)).to_numpy()
    other = cells.copy()
    other.X = sparse.csr_matrix(np.where(away[:, None], other.X.toarray()[:, ::-1] * 3, other.X.toarray()))
    found = hold_out(other, "b", 40)
    assert task.train.obs_names.tolist() == cells.obs_names[~away].tolist()
    assert found.train.var_names.tolist() == task.train.var_names.tolist()
    assert (found.train.X != task.train.X).nnz == 0
    assert found.total == task.total
    assert len(task.real) == away.sum()
    assert not np.allclose(found.real, task.real)


def test_the_published_shift_is_that_of_resampling_on_average(task):
    values, rng = task.logs(), np.random.default_rng(0)
    codes = np.array([TYPES.index(t) for t in task.train.obs[TYPE]])
    sides = Sides.of(codes, 3, *((task.train.obs[CONDITION] == c).to_numpy() for c in (CONTROL, STIMULATED)))
    drawn = np.concatenate([resampled(values, sides, rng).replicates for _ in range(4)])
    error = drawn.std(0, ddof=1) / np.sqrt(len(drawn))
    distance = (drawn.mean(0) - between(task, values)) / error
    assert abs(distance).max() < 4.5
    # and lies a third of the way from the held-out type to the others
    control = {t: values[task.under(CONTROL, t)].mean(0) for t in TYPES}
    pull = ((control["a"] + control["c"]) / 2 - control["b"]) / 3
    np.testing.assert_allclose(between(task, values), within(task, values) + pull, atol=1e-5)
    assert abs(pull / error).max() > 10  # which the draws can tell


def test_no_effect_earns_nothing_and_the_shift_does(task):
    run = Run(0, {}, None)
    none = score(task, next(nothing(task, run)).values)
    assert none["difference"] == none["difference_top"] == 0
    assert none["all"] > 0.5
    assert score(task, next(gene_space(task, run)).values)["difference"] > 0.7
