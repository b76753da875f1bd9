"""A process of its own that calls functions on a small and on a large fitted file, and prints the peaks of each.

    python tests/downstream_worker.py FOLDER

Everything that is read or computed some cells at a time is small here, so that what is not shows: a cell has 2.4 kB of
counts, and 4 kB as a dense row.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "benchmark"), str(HERE.parent)]

SMALL, LARGE, N_GENES, DENSITY = 2000, 6000, 1000, 0.3
BUFFER, CELLS = 2**20, 256


def write(folder: Path) -> list[Path]:
    """Fit some cells; write them, and as many of them as are to be a small file."""
    import scanpy_scvi as sv

    adata = sv.datasets.simulate(n_cells=LARGE, n_genes=N_GENES, density=DENSITY)
    adata.layers.clear()
    adata.obsm.clear()
    sv.tl.scvi(adata, "batch", n_hidden=16, n_latent=4, max_epochs=1, normalized=False, progress=False)
    paths = [folder / f"{n}.h5ad" for n in (SMALL, LARGE)]
    for n, path in zip((SMALL, LARGE), paths, strict=True):
        adata[:n].write_h5ad(path)
    return paths


def in_small_pieces() -> None:
    """Let what is read or computed at a time be small."""
    from downstream import small_buffer

    from scanpy_scvi.posterior import bound, expression, latent
    from scanpy_scvi.store import backed_counts, stored_rows
    from scanpy_scvi.training import sources

    small_buffer(BUFFER)
    sources.CHUNK = backed_counts.CHUNK = bound.CHUNK = expression.CHUNK = latent.CHUNK = CELLS
    stored_rows.MOST_AT_ONCE = BUFFER // 4


def main() -> None:
    """Warm up on the small file, then measure on both."""
    from downstream import FUNCTIONS, Stored
    from footprint import forget_peak, resident

    warnings.simplefilter("ignore")
    in_small_pieces()
    small, large = (Stored(path, "batch", "label") for path in write(Path(sys.argv[1])))
    for name, function in FUNCTIONS.items():
        function(small)
        peaks = []
        for stored in (small, large):
            forget_peak()
            before = resident()
            function(stored)
            peaks.append(resident("VmHWM") - before)
        print(json.dumps({"function": name, "peaks_mib": peaks}), flush=True)


if __name__ == "__main__":
    main()
