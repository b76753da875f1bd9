import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from modules.small_models import table

import scanpy_scvi as sv
from scanpy_scvi.modules import VAE
from scanpy_scvi.training.batches import hold_out, minibatches


@given(n=st.integers(2, 3000), batch_size=st.integers(2, 400), seed=st.none() | st.integers(0, 9))
def test_minibatches_partition_the_rows_evenly_and_none_has_one_cell(n, batch_size, seed):
    rows = np.arange(n) * 3 + 1
    batches = list(minibatches(rows, batch_size, None if seed is None else np.random.default_rng(seed)))
    sizes = [len(b) for b in batches]
    assert min(sizes) >= 2
    assert max(sizes) <= max(batch_size, 3)  # two and one cell left over make three
    assert max(sizes) - min(sizes) <= 1
    together = np.concatenate(batches)
    assert np.array_equal(together if seed is None else np.sort(together), rows)


@given(n=st.integers(1, 50))
def test_one_minibatch_takes_all_where_they_fit(n):
    (batch,) = minibatches(np.arange(n), 50)
    assert np.array_equal(batch, np.arange(n))


def test_cells_without_counts_are_else_the_same():
    data, rows = table(), np.array([4, 4, 30])
    full, empty = data.take(rows), data.take(rows, counts=False)
    assert empty.counts.log1p().count_nonzero() == 0
    assert empty.counts.log1p().shape == full.counts.log1p().shape
    for field in ("log_total", "batch", "labels", "categorical", "continuous", "index"):
        assert torch.equal(getattr(full, field), getattr(empty, field))


def test_minibatches_are_shuffled_anew():
    rng = np.random.default_rng(0)
    first, second = (np.concatenate(list(minibatches(np.arange(100), 10, rng))) for _ in range(2))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, np.arange(100))


@given(n=st.integers(4, 5000), share=st.floats(0, 0.9), seed=st.integers(0, 5))
def test_held_out_cells(n, share, seed):
    train, held_out = hold_out(n, share, np.random.default_rng(seed))
    assert np.array_equal(np.sort(np.concatenate([train, held_out])), np.arange(n))
    assert (np.diff(train) > 0).all()
    assert (np.diff(held_out) > 0).all()
    assert len(train) >= 2
    assert len(held_out) == (0 if share == 0 else min(max(2, round(share * n)), n - 2))


def test_held_out_cells_are_drawn_at_random():
    drawn = np.zeros(50)
    for seed in range(400):
        drawn[hold_out(50, 0.2, np.random.default_rng(seed))[1]] += 1
    assert abs(drawn / 400 - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 400)


def test_table_gives_the_cells_that_were_asked_for(data, simulated):
    rows = np.array([7, 3, 3, 119])
    cells = data.table.take(rows)
    dense = simulated.X[rows].toarray()
    np.testing.assert_allclose(cells.counts.log1p().numpy(), np.log1p(dense), rtol=1e-6)
    np.testing.assert_allclose(cells.log_total.numpy(), np.log(dense.sum(1)), rtol=1e-6)
    assert cells.index.tolist() == rows.tolist()
    assert cells.batch.tolist() == simulated.obs["batch"].cat.codes.iloc[rows].tolist()
    assert cells.batch.dtype == torch.int64


@pytest.mark.parametrize("batch_size", [107, 53, 2, 3, 10**6])
def test_no_minibatch_of_one_cell_in_a_fit(batch_size, adata, monkeypatch):
    sizes = []
    forward = VAE.forward

    def spy(self, cells):
        sizes.append(cells.n_cells if self.training else 99)
        return forward(self, cells)

    monkeypatch.setattr(VAE, "forward", spy)
    sv.tl.scvi(adata, max_epochs=1, n_hidden=8, n_latent=2, batch_size=batch_size, progress=False)
    assert min(sizes) >= 2
    assert max(sizes) <= max(batch_size, 3, 99)
