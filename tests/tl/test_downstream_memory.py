"""What is asked of a fit whose counts stay in a file takes memory for its results, and not for cells x genes.

Memory is what Python's allocator and NumPy have at a time, which is exact; that of torch is not in it, and is measured
by `benchmark/downstream.py`.
"""

import runpy
import sys
import tracemalloc
from pathlib import Path

import pytest
from distant import set_buffer

import scanpy_scvi as sv

DOWNSTREAM = runpy.run_path(str(Path(__file__).parents[1] / "benchmark" / "downstream.py"))
SMALL, LARGE, N_GENES, DENSITY = 800, 2400, 600, 0.5
COUNTS = 8 * N_GENES * DENSITY
"""Bytes of the counts of a cell."""
FEW_COLUMNS = 300
"""Bytes a cell that a function may take: its name, its columns of `obs` and `obsm`, and a few numbers of its own."""
BESIDE = {"labels": 1200, "maps_new": 700}
"""Bytes a cell beyond these: of the neighbours that the exact search among up to 20,000 cells finds, and of the order
of cells in an epoch, which is drawn one by one in buffers as small as here."""
SLACK = 2**18
"""Bytes by which peaks vary, as that of what is read and computed at a time does."""
BUFFER, CELLS = 2**20, 64
AT_A_TIME = {
    "training.sources.CHUNK": CELLS,
    "training.sources.MOST_KEPT": BUFFER // 4,
    "store.backed_counts.CHUNK": CELLS,
    "store.stored_rows.MOST_AT_ONCE": BUFFER // 4,
    "posterior.latent.CHUNK": CELLS,
    "posterior.expression.CHUNK": CELLS,
    "posterior.bound.CHUNK": CELLS,
    "posterior.depth.MOST_CELLS": CELLS,
    "training.start.MOST_COMPARED": CELLS,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A fit of some cells, and a file of fewer of them."""
    folder = tmp_path_factory.mktemp("fitted")
    adata = sv.datasets.simulate(n_cells=LARGE, n_genes=N_GENES, density=DENSITY)
    adata.layers.clear()
    adata.obsm.clear()
    sv.tl.scvi(adata, "batch", n_hidden=16, n_latent=4, max_epochs=1, normalized=False, progress=False)
    for n in (SMALL, LARGE):
        adata[:n].write_h5ad(folder / f"{n}.h5ad")
    return [DOWNSTREAM["Stored"](folder / f"{n}.h5ad", "batch", "label", draws=100) for n in (SMALL, LARGE)]


@pytest.fixture
def _in_small_pieces(monkeypatch):
    """Let what is read or computed at a time be small."""
    set_buffer(monkeypatch, BUFFER)
    for name, value in AT_A_TIME.items():
        monkeypatch.setattr(f"scanpy_scvi.{name}", value)
    monkeypatch.setattr(sys.modules["scanpy_scvi.training.fit"], "EVALUATION_BATCH", CELLS)  # a function has its name


def peak(function, stored):
    tracemalloc.start()
    try:
        function(stored)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("_in_small_pieces")
@pytest.mark.parametrize("name", DOWNSTREAM["FUNCTIONS"])
def test_memory_does_not_grow_with_cells_times_genes(files, name):
    function, (small, large) = DOWNSTREAM["FUNCTIONS"][name], files
    function(small)  # what is imported and compiled stays
    allowed = (LARGE - SMALL) * (FEW_COLUMNS + BESIDE.get(name, 0)) + SLACK
    assert allowed < (LARGE - SMALL) * COUNTS * 3 / 4  # else the test could not fail
    assert peak(function, large) - peak(function, small) < allowed


@pytest.mark.usefixtures("_in_small_pieces")
def test_counts_in_memory_would_be_seen(files):
    def whole(stored):
        stored.opened().to_memory()

    small, large = (peak(whole, stored) for stored in files)
    assert large - small > (LARGE - SMALL) * COUNTS
