"""How time and memory of a fit grow with the number of cells, in memory and from a file.

    python tests/benchmark/growth.py [--cells 10000 31623 100000 316228 1000000 --kinds memory h5ad --genes 2000]
        [--epochs 3 --buffer-mib 8 --out growth.jsonl --folder DIR]

Fits are those of `out_of_core.py`, each in a process of its own; files are written where `--folder` has none yet.
Counts of up to one buffer are read whole, so that `h5ad` is out of core only beyond it: `--buffer-mib` makes that so
for few cells. Lines that `--out` has are not measured again. Prints a JSON line for each fit, then for each kind the
exponents of seconds per epoch, CPU seconds per epoch and peak memory: slopes in logarithms, by least squares.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
from _common import read_lines
from out_of_core import KINDS, measure, write

FIELDS = ("seconds_per_epoch", "cpu_per_epoch", "peak_mib")


def exponents(lines: list[dict]) -> dict[str, float]:
    """Slope of each measure against the cells, in logarithms."""
    cells = np.log([line["cells"] for line in lines])
    return {
        field: round(float(np.polyfit(cells, np.log([line[field] for line in lines]), 1)[0]), 3) for field in FIELDS
    }


def main() -> None:
    """Measure what is not measured yet, then fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[10_000, 31_623, 100_000, 316_228, 1_000_000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["memory", "h5ad"])
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--buffer-mib", type=float)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for n_cells in args.cells:
            done = {(line["cells"], line["kind"]) for line in read_lines(args.out)}
            kinds = [kind for kind in args.kinds if (n_cells, kind) not in done]
            of_size = argparse.Namespace(**vars(args) | {"cells": n_cells, "kinds": kinds, "rounds": 1, "block": None})
            folder = (args.folder or Path(temporary)) / str(n_cells)
            if kinds and not folder.exists():
                folder.mkdir(parents=True)
                warnings.simplefilter("ignore")  # anndata's advice on shards
                write(folder, of_size)
            measure(of_size, folder)
    for kind in args.kinds:
        lines = [line for line in read_lines(args.out) if line["kind"] == kind and line["cells"] in args.cells]
        print(json.dumps({"kind": kind, "cells": [line["cells"] for line in lines], "exponents": exponents(lines)}))


if __name__ == "__main__":
    main()
