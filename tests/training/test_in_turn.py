"""Cells one minibatch after another: the minibatches of memory from anywhere, in few reads of bounded size."""

import numpy as np
import pytest
import torch
from distant import Distant, distant, set_buffer, size
from hypothesis import given
from hypothesis import strategies as st
from modules.small_models import table

from scanpy_scvi.numerics.sparse import CSRRows
from scanpy_scvi.training.in_turn import in_turn
from scanpy_scvi.training.sources import SomeCells, near, read_at_once, size_of, some_cells

DATA = table(300)


@given(
    n_rows=st.integers(1, 300),
    n_parts=st.integers(1, 50),
    together=st.integers(1, 200),
    batch_size=st.integers(2, 90),
    rising=st.booleans(),
    seed=st.integers(0, 5),
)
def test_minibatches_are_those_of_memory(n_rows, n_parts, together, batch_size, rising, seed):
    rows = np.random.default_rng(seed).permutation(300)[:n_rows]
    rows = np.sort(rows) if rising else rows
    far = distant(DATA, together)
    with pytest.MonkeyPatch.context() as patch:
        set_buffer(patch, size(DATA) // n_parts)
        most = read_at_once(far.counts)
        found = list(in_turn(far, batch_size, rows))
    expected = list(in_turn(DATA, batch_size, rows))
    assert np.array_equal(np.concatenate([part.at for part in found]), np.arange(n_rows))
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.at, other.at)
        assert np.array_equal(one.at, np.arange(n_rows)[one.place])
        for a, b in zip(one.cells.counts.rows(), other.cells.counts.rows(), strict=True):
            assert np.array_equal(a, b)
        assert torch.equal(one.cells.index, other.cells.index)
        assert torch.equal(one.cells.continuous, other.cells.continuous)
    assert np.array_equal(np.concatenate(far.counts.taken), rows)  # once each, in the order asked for
    largest = max(size_of(DATA.counts, rows[part.at]) for part in found)
    assert all(size_of(DATA.counts, taken) <= max(most, largest) for taken in far.counts.taken)


def test_many_minibatches_are_one_read(monkeypatch):
    far = distant(DATA, together=100)
    set_buffer(monkeypatch, 4 * size(DATA))
    assert len(list(in_turn(far, 10))) == 30
    assert len(far.counts.taken) <= 2


@given(seed=st.integers(0, 5), n=st.integers(0, 300), together=st.integers(1, 100))
def test_some_cells_of_a_source_are_those_of_memory(seed, n, together):
    rng = np.random.default_rng(seed)
    rows, far = rng.permutation(300)[:n], Distant(DATA.counts, together)
    found, expected = some_cells(far, rows), DATA.counts.take(rows)
    assert not far.taken  # nothing is read before it is asked for
    assert isinstance(expected, CSRRows)
    assert not found.in_memory
    assert (found.n_cells, found.n_entries) == (expected.n_cells, expected.n_entries)
    assert np.array_equal(found.indptr, expected.indptr)
    assert 1 <= found.together <= max(1, min(n, together))
    some = rng.integers(n, size=7) if n else np.empty(0, np.int64)
    for one, other in ((found.rows(0, n), expected), (found.take(some), expected.take(some))):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_cells_of_a_few_chunks_are_read_by_chunk():
    far = Distant(DATA.counts, together=50)
    assert some_cells(far, np.arange(100, 200)).together == 50
    assert some_cells(far, np.arange(0, 300, 10)).together == 5


def test_what_fits_into_a_buffer_is_read_into_it(monkeypatch):
    far = distant(DATA)
    set_buffer(monkeypatch, size(DATA))
    assert isinstance(far.near().counts, CSRRows)
    assert all(np.array_equal(a, b) for a, b in zip(far.near().counts, DATA.counts, strict=True))
    set_buffer(monkeypatch, size(DATA) - 1)
    assert far.near().counts is far.counts
    some = far.subset(np.arange(100))
    assert isinstance(some.counts, SomeCells)
    assert isinstance(near(some.counts), CSRRows)
    assert near(DATA.counts) is DATA.counts
