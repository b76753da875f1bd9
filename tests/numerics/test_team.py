import threading
import time

import pytest

from scanpy_scvi.numerics.team import WORTHWHILE, share, team_of


def parts_of(n_items, seconds):
    parts, threads = [], []

    def work(start, stop):
        parts.append((start, stop))
        threads.append(threading.get_ident())
        time.sleep(0.1)  # or one thread may take two parts, on a busy machine

    share(n_items, seconds, work)
    return sorted(parts), len(set(threads))


@pytest.mark.parametrize("n_items", [1, 2, 7, 1000])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_cover_everything_once(n_items, size):
    with team_of(size):
        parts, n_threads = parts_of(n_items, 1.0)
    assert [i for start, stop in parts for i in range(start, stop)] == list(range(n_items))
    assert n_threads == len(parts) == min(size, n_items)


def test_little_work_and_no_team_stay_with_the_caller():
    with team_of(4):
        assert parts_of(100, WORTHWHILE)[0] == [(0, 100)]
        assert len(parts_of(100, 2.5 * WORTHWHILE)[0]) == 2
    assert parts_of(100, 1.0)[0] == [(0, 100)]


@pytest.mark.parametrize("sick", [0, 60])
def test_errors_come_back_after_all_parts_have_ended(sick):
    ended = []

    def work(start, stop):
        if start <= sick < stop:
            msg = "sick"
            raise KeyError(msg)
        time.sleep(0.02)
        ended.append(start)

    with team_of(2):
        with pytest.raises(KeyError, match="sick"):
            share(100, 1.0, work)
        assert len(ended) == 1
        assert parts_of(10, 1.0)[1] == 2  # the team still works


def test_further_threads_are_prepared_and_gone_afterwards():
    before, prepared = threading.active_count(), []
    with team_of(3, lambda: prepared.append(threading.get_ident())):
        parts_of(9, 1.0)
    assert len(set(prepared)) == 2
    assert threading.get_ident() not in prepared
    assert threading.active_count() == before
