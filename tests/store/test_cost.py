"""The estimate of time and memory, against the fit itself."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import sparse

import scanpy_scvi as sv
from scanpy_scvi.modules.cells import Dimensions
from scanpy_scvi.store import cost as module
from scanpy_scvi.store.cost import Cost, CostOptions, estimate_cost
from scanpy_scvi.store.cost_findings import cost_findings
from scanpy_scvi.store.covariates import ColumnKeys
from scanpy_scvi.store.read import read
from scanpy_scvi.training import TrainingConfig, fit, seeded
from scanpy_scvi.training.config import default_max_epochs

GB = 10**9
PLAIN = Cost(
    max_epochs=100,
    n_batches=4,
    seconds_per_epoch=2.0,
    counts=GB,
    parameters=GB,
    minibatch=0,
    normalized=2 * GB,
    free=100 * GB,
)


@pytest.fixture(scope="module")
def data():
    adata = sv.datasets.simulate(n_cells=300, n_genes=400, n_batches=2)
    return read(adata, ColumnKeys("batch"), layer=None, mask_var=None)


def estimate(data, **options):
    rows = data.table.counts
    matrix = sparse.csr_array((rows.data, rows.indices, rows.indptr), shape=(300, 400))
    return estimate_cost(matrix, (300, 400), matrix.nnz, data.dims, CostOptions(**options))


def test_the_time_of_an_epoch_is_that_of_the_fit(data, monkeypatch):
    """CPU time in place of wall time: a busy machine must not decide."""
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    found = estimate(data)
    ends: list[float] = []
    with seeded(0):
        model = module._spec(data.dims, CostOptions()).build()
        config = TrainingConfig(max_epochs=6, early_stopping=False)
        fit(model, data.table, config, on_epoch=lambda *_: ends.append(time.process_time()))
    assert 0.2 < found.seconds_per_epoch / np.diff(ends).min() < 5


def test_counts_in_a_large_file_take_buffers_and_not_more_with_more_cells(data):
    rows = data.table.counts
    matrix = sparse.csr_array((rows.data, rows.indices, rows.indptr), shape=(300, 400))
    found = {
        (n, in_file): estimate_cost(matrix, (n, 400), 100 * n, data.dims, CostOptions(), in_file=in_file).counts
        for n in (1000, 10**7, 10**8)
        for in_file in (False, True)
    }
    assert found[1000, True] == found[1000, False]  # it is read whole
    assert found[10**8, False] > 80 * GB
    assert found[10**7, True] < 1.5 * GB
    assert found[10**8, True] - found[10**7, True] <= 24 * (10**8 - 10**7)


def test_memory_is_the_sum_of_its_parts(data):
    found = estimate(data)
    assert found.counts == 8 * len(data.table.counts.data) + 8 * 300
    assert found.normalized == 4 * 300 * 400
    with seeded(0):
        n_weights = sum(p.numel() for p in module._spec(data.dims, CostOptions()).build().parameters())
    assert found.parameters == 4 * module.COPIES * n_weights
    assert found.memory == found.counts + found.parameters + found.minibatch + found.normalized


def test_the_budget_is_that_of_the_fit(data):
    assert estimate(data).max_epochs == default_max_epochs(300)
    assert estimate(data, max_epochs=3).max_epochs == 3


def test_a_larger_model_costs_more(data):
    assert estimate(data, n_hidden=512, n_layers=2).parameters > 4 * estimate(data).parameters


def test_every_likelihood_can_be_timed(data):
    assert all(estimate(data, likelihood=name).seconds > 0 for name in ("nb", "zinb", "poisson"))


def test_timing_leaves_the_random_state_alone(data):
    import torch

    before = torch.random.get_rng_state()
    estimate(data)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_hardly_any_cell_to_time():
    counts = sparse.csr_array(np.ones((5, 30), np.float32))
    dims = Dimensions(n_genes=30)
    found = estimate_cost(counts, (5, 30), 150, dims, CostOptions())
    assert found.seconds is None
    assert [f.level for f in cost_findings(found)] == ["note", "ok"]


def test_seconds_count_the_normalized_layer_of_every_batch():
    assert PLAIN.seconds == 2.0 * (100 + 4 * module.DECODING)
    assert PLAIN._replace(normalized=60 * GB).seconds == 200.0


@pytest.mark.parametrize(
    ("change", "levels", "words"),
    [
        ({}, ["ok", "ok"], "2.0 GB for the normalized layer) of 100.0 GB free"),
        ({"seconds_per_epoch": 60.0}, ["note", "ok"], "101 min if it needs all 100"),
        ({"free": 3 * GB}, ["ok", "ok"], "none for the normalized layer, which would take 2.0 GB and is left out"),
        ({"free": GB}, ["ok", "warning"], "too much. Model fewer genes"),
        ({"free": None}, ["ok", "ok"], "4.0 GB on top of the data"),
    ],
)
def test_cost_in_words(change, levels, words):
    found = cost_findings(PLAIN._replace(**change))
    assert [f.level for f in found] == levels
    assert words in " ".join(f.message for f in found)
