"""Counts that are far away: every cell once an epoch, well mixed, and the bits of memory where order is the same."""

import threading
from contextlib import closing
from functools import partial

import numpy as np
import pytest
import torch
from distant import Distant, distant, set_buffer, size
from hypothesis import given
from hypothesis import strategies as st
from modules.small_models import table

from scanpy_scvi.numerics.sparse import CSRRows, row_marks
from scanpy_scvi.posterior.group_means import GroupSums
from scanpy_scvi.store.identity import counts_id
from scanpy_scvi.training import fit, minibatches
from scanpy_scvi.training.prefetch import prefetched
from scanpy_scvi.training.ranks import Ranks
from scanpy_scvi.training.shuffle import FEWEST_BLOCKS, LEAST_BLOCK, buffers, deal, training_cells
from scanpy_scvi.training.sources import MOST_KEPT, PartlyKept, blocks, keep, size_of
from scanpy_scvi.training.start import batch_log_means, batch_means_of_log1p, principal_scores


def prefetch_threads():
    return [t for t in threading.enumerate() if t.name.startswith("scanpy_scvi_prefetch") and t.is_alive()]


def unit_rows(n):
    """n cells of one entry each, so that their bytes are known."""
    return CSRRows(np.arange(n + 1), np.zeros(n, np.int32), np.ones(n, np.float32))


def sizes_of(rows, batch_size):
    return np.array([len(part) for part in minibatches(rows, batch_size)])


def epoch(data, rows, batch_size, rng):
    with closing(training_cells(data, rows, batch_size, rng)) as parts:
        return [part.cells for part in parts]


@given(
    n=st.integers(2, 4000),
    share=st.floats(0.1, 1),
    together=st.integers(1, 500),
    n_bytes=st.integers(200, 50_000),
    batch_size=st.integers(2, 500),
    seed=st.integers(0, 5),
)
def test_buffers_hold_every_cell_once_and_no_more_than_they_may(n, share, together, n_bytes, batch_size, seed):
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(rng.random(n) < share)
    rows = rows if len(rows) else np.array([0])
    sizes = sizes_of(rows, batch_size)
    sets = buffers(Distant(unit_rows(n), together), rows, sizes, rng, n_bytes)
    assert np.array_equal(np.sort(np.concatenate([some.rows for some in sets])), rows)
    assert np.array_equal(np.concatenate([some.sizes for some in sets]), sizes)
    assert all(len(some.rows) == some.sizes.sum() > 0 for some in sets)
    assert all((np.diff(some.rows) > 0).all() for some in sets)
    assert 16 * max(some.sizes.sum() for some in sets) <= n_bytes + 16 * 2 * batch_size  # minibatches are whole


def test_minibatches_of_an_epoch_are_those_of_memory_in_number_and_size(monkeypatch):
    data = table(500)
    set_buffer(monkeypatch, size(data) // 7)
    rows = np.flatnonzero(np.arange(500) % 5)
    rng, seen = np.random.default_rng(0), []
    for _ in range(3):
        parts = epoch(distant(data), rows, 33, rng)
        assert [p.n_cells for p in parts] == [len(p) for p in minibatches(rows, 33)]
        index = torch.cat([p.index for p in parts]).numpy()
        assert np.array_equal(np.sort(index), rows)
        seen.append(index)
        for part in parts:
            expected = data.take(part.index.numpy())
            assert all(map(np.array_equal, part.counts[:3], expected.counts[:3]))
            assert torch.equal(part.batch, expected.batch)
            assert torch.equal(part.log_total, expected.log_total)
    assert not np.array_equal(seen[0], seen[1])
    again = [p.index for p in epoch(distant(data), rows, 33, np.random.default_rng(0))]
    assert np.array_equal(torch.cat(again).numpy(), seen[0])


@pytest.mark.parametrize("n_processes", [2, 3, 4])
def test_processes_have_the_minibatches_of_one_and_read_little_more_than_their_part(n_processes, monkeypatch):
    data, batch_size = table(3000), 128
    rows = np.flatnonzero(np.arange(3000) % 5)
    set_buffer(monkeypatch, size(data) // 3)
    whole = epoch(distant(data), rows, batch_size, np.random.default_rng(1))
    taken, of_all = [], []
    for rank in range(n_processes):
        far = distant(data)
        with closing(
            training_cells(far, rows, batch_size, np.random.default_rng(1), Ranks(n_processes, rank))
        ) as parts:
            of_all.append(list(parts))
        taken.append(sum(map(len, far.counts.taken)))
    for one, shares in zip(whole, zip(*of_all, strict=True), strict=True):
        assert {part.n_cells for part in shares} == {one.n_cells}
        assert torch.equal(torch.cat([part.cells.index for part in shares]), one.index)
        assert torch.equal(torch.cat([part.cells.counts.data for part in shares]), one.counts.data)
    assert sum(taken) == len(rows)
    for parts in of_all:  # the stretch of its buffers that a process has, in the first of them
        first = np.concatenate([part.cells.index.numpy() for part in parts[: len(parts) // 3]])
        assert np.subtract(*np.quantile(first, [0.95, 0.05])) < 3000 / n_processes * 1.4


def test_an_epoch_that_stops_early_leaves_the_generator_where_a_whole_one_does(monkeypatch):
    data = table(300)
    set_buffer(monkeypatch, size(data) // 7)
    whole, part = np.random.default_rng(3), np.random.default_rng(3)
    epoch(distant(data), np.arange(300), 32, whole)
    with closing(training_cells(distant(data), np.arange(300), 32, part)) as parts:
        next(parts)
    assert whole.integers(2**60) == part.integers(2**60)


@pytest.mark.parametrize("n_types", [4, 20])
@pytest.mark.parametrize("together", [1, 100_000])
def test_a_file_sorted_by_type_is_mixed(n_types, together, monkeypatch):
    """sum_k (n_k - n p_k)^2 / (n p_k) over types k of n cells is n_types - 1 on average, and more where types stick."""
    n, batch_size = 60_000, 120
    types = np.repeat(np.arange(n_types), n // n_types)
    set_buffer(monkeypatch, 16 * n // 6)
    counts = Distant(unit_rows(n), together)
    order, distance = np.random.default_rng(0), []
    for some in buffers(counts, np.arange(n), sizes_of(np.arange(n), batch_size), order):
        mine = deal(some, order, Ranks())
        for size_of_part, at in mine.parts:
            found = np.bincount(types[mine.rows[at]], minlength=n_types)
            distance.append(((found - size_of_part / n_types) ** 2).sum() / (size_of_part / n_types))
    n_blocks = n // 6 // (LEAST_BLOCK if together == 1 else n // 6 // 256)
    spread = 1 + batch_size / max(n_blocks, FEWEST_BLOCKS)  # by blocks, on top of that by cells
    assert np.mean(distance) < 1.3 * spread * (n_types - 1)
    assert np.mean(distance) < 0.2 * batch_size * (n_types - 1)  # minibatches of one type


def test_memory_keeps_its_permutation():
    data = table(100)
    parts = epoch(data, np.arange(100), 10, np.random.default_rng(5))
    expected = list(minibatches(np.arange(100), 10, np.random.default_rng(5)))
    assert [p.index.tolist() for p in parts] == [rows.tolist() for rows in expected]


def test_what_a_fit_starts_from_has_the_bits_of_memory(monkeypatch):
    monkeypatch.setattr("scanpy_scvi.training.sources.CHUNK", 16)
    near = table(90)
    far = distant(near)
    assert np.array_equal(batch_log_means(near), batch_log_means(far))
    scaled = (batch_means_of_log1p(t, 100.0, t.log_total) for t in (near, far))
    assert np.array_equal(*scaled)
    assert counts_id(near.counts) == counts_id(far.counts)
    codes = np.arange(90) % 4 - 1
    one, other = (GroupSums(t, codes, 3).of([0, 2]) for t in (near, far))
    assert all(map(np.array_equal, one, other))


def test_principal_scores_from_afar_span_those_of_memory(data):
    near, far = (principal_scores(t, 3) for t in (data.table, distant(data.table)))
    assert far.shape == near.shape
    assert far.std() == pytest.approx(1, abs=1e-5)
    basis = np.linalg.qr(near - near.mean(0))[0]
    inside = np.linalg.norm(basis.T @ (far - far.mean(0)), axis=0) / np.linalg.norm(far - far.mean(0), axis=0)
    assert inside.min() > 0.95


def test_kept_cells_are_not_read_again():
    source = Distant(table(50).counts)
    rows = np.array([3, 7, 8, 40])
    kept = keep(source, rows)
    assert isinstance(kept, PartlyKept)
    source.taken.clear()
    for wanted in ([7, 3], [40, 40, 8], [3]):
        assert all(map(np.array_equal, kept.take(np.array(wanted)), source._rows.take(np.array(wanted))))
    assert source.taken == []
    for wanted in ([7, 4], [49], []):
        assert all(map(np.array_equal, kept.take(np.array(wanted, int)), source._rows.take(np.array(wanted, int))))
    assert len(source.taken) == 3


def test_few_cells_are_kept_and_many_are_not(monkeypatch):
    source = Distant(unit_rows(100))
    assert size_of(source, np.arange(10)) == 160 < MOST_KEPT
    assert keep(source, np.arange(0)) is source
    monkeypatch.setattr("scanpy_scvi.training.sources.MOST_KEPT", 159)
    assert keep(source, np.arange(10)) is source
    assert isinstance(keep(source, np.arange(9)), PartlyKept)
    memory = unit_rows(100)
    assert keep(memory, np.arange(9)) is memory


def test_blocks_are_all_rows():
    rows = table(50).counts
    parts = list(blocks(rows, 16))
    assert [(b.cells.start, b.cells.stop) for b in parts] == [(0, 16), (16, 32), (32, 48), (48, 50)]
    assert np.array_equal(np.concatenate([b.rows.data for b in parts]), rows.data)


@given(seed=st.integers(0, 200))
def test_a_mark_changes_with_any_entry_and_only_then(seed):
    rng = np.random.default_rng(seed)
    rows = table(5, seed=seed).counts
    before = row_marks(rows)
    cell = rng.integers(5)
    at = rng.integers(rows.indptr[cell], rows.indptr[cell + 1])
    field = rng.choice(["data", "indices"])
    changed = getattr(rows, field).copy()
    changed[at] += 1
    other = row_marks(rows._replace(**{field: changed}))
    assert np.flatnonzero(before != other).tolist() == [cell]
    assert np.array_equal(row_marks(rows), before)


def test_a_mark_sees_counts_that_change_places():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, (200, 6)).astype(np.float32)
    every = np.tile(np.arange(6, dtype=np.int32), 200)
    one, other = (row_marks(CSRRows(np.arange(0, 1201, 6), every, x.ravel())) for x in (counts, counts[:, ::-1]))
    assert np.array_equal(one == other, (counts == counts[:, ::-1]).all(1))


def test_results_come_in_order_and_the_next_is_begun_before_it_is_asked_for():
    begun = [threading.Event() for _ in range(3)]

    def job(k):
        begun[k].set()
        return k

    with closing(prefetched(partial(job, k) for k in range(3))) as results:
        assert next(results) == 0
        assert begun[1].wait(10)
        assert not begun[2].is_set()
        assert list(results) == [1, 2]
    assert prefetch_threads() == []


def test_an_error_of_a_job_reaches_the_caller_and_ends_the_thread():
    def job(k):
        if k == 1:
            raise ValueError("chunk 1")
        return k

    seen = []
    results = prefetched(partial(job, k) for k in range(3))
    with pytest.raises(ValueError, match="chunk 1"), closing(results):
        seen.extend(results)
    assert seen == [0]
    assert prefetch_threads() == []


def far_fit(data, make_model, config, monkeypatch, **options):
    set_buffer(monkeypatch, size(data.table) // 4)
    model = make_model()
    far = distant(data.table)
    return model, far, partial(fit, model, far, config(max_epochs=3), **options)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_thread_ends_with_a_fit_that_is_stopped(error, data, make_model, config, monkeypatch):
    calls = []
    forward = type(make_model()).forward

    def stops(self, cells):
        calls.append(cells.n_cells)
        if len(calls) == 2:
            raise error
        return forward(self, cells)

    monkeypatch.setattr(type(make_model()), "forward", stops)
    run = far_fit(data, make_model, config, monkeypatch)[2]
    with pytest.raises(error):
        run()
    assert prefetch_threads() == []


def test_an_error_of_the_source_ends_a_fit(data, make_model, config, monkeypatch):
    _, far, run = far_fit(data, make_model, config, monkeypatch)
    take = far.counts.take

    def fails(rows):
        if threading.current_thread() is not threading.main_thread() and len(far.counts.taken) > 3:
            raise ValueError("chunk 3 of the file")
        return take(rows)

    monkeypatch.setattr(far.counts, "take", fails)
    with pytest.raises(ValueError, match="chunk 3 of the file"):
        run()
    assert prefetch_threads() == []


def test_two_fits_from_afar_have_the_same_bits(data, make_model, config, monkeypatch):
    states = []
    for _ in range(2):
        torch.manual_seed(1)  # a fit leaves the seed to its caller
        model, far, run = far_fit(data, make_model, config, monkeypatch)
        result = run()
        states.append([t.clone() for t in model.state_dict().values()])
        held_out = {tuple(rows) for rows in far.counts.taken}
        assert sum(rows == tuple(result.validation_rows) for rows in held_out) == 1  # read once, then kept
    assert all(map(torch.equal, *states))
    assert prefetch_threads() == []
