"""What is asked of a fit whose counts stay in a file takes memory for its results, and not for cells x genes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import downstream_worker as worker
import pytest

TESTS = Path(__file__).parents[1]
MORE_CELLS = worker.LARGE - worker.SMALL
FEW_COLUMNS = 600
"""Bytes a cell that a function may take: its names, its columns of `obs` and `obsm`, and a few numbers of its own."""
SLACK = 1.5
"""MiB by which peaks vary."""
NAMES = ("genes_differ", "genes_differ_weighted", "expression", "maps_known", "maps_new", "labels", "trust", "slim")
NAMES += ("verify", "log_likelihood")

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads peaks of memory from /proc")


@pytest.fixture(scope="module")
def peaks(tmp_path_factory):
    """Peaks of all functions on a small and a large file, MiB."""
    # blocks of memory from 64 kB on are given back as soon as they are free, so that what is resident is in use
    given_back = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TESTS / "downstream_worker.py"), str(tmp_path_factory.mktemp("fitted"))]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **given_back})
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return {line["function"]: line["peaks_mib"] for line in lines}


def test_all_are_measured(peaks):
    assert set(peaks) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_cells_times_genes(peaks, name):
    small, large = peaks[name]
    counts = worker.N_GENES * worker.DENSITY * 8
    allowed = MORE_CELLS * FEW_COLUMNS / 2**20 + SLACK
    assert allowed < MORE_CELLS * counts / 2**20 / 2  # else the test could not fail
    assert large - small < allowed
