"""Which rotation of a latent space brings back dimensions that perturbations shift sparsely?

    python tests/benchmark/rotation.py [--seeds 3]

Latent states with known shifts (tests/shifted_latents.py) behind a random invertible map. Printed: mean absolute
correlation of matched dimensions (mean over seeds, and the least), targets' F1 at the default threshold, and CPU
seconds. Whitening and weights are the same for all criteria. L1 is that of `tl.rotate`; varimax and quartimax, whose
fourth powers are summed with and without the columns' means taken off, are maximised from as many starts by their
fixed point; ICA is `method="ica"`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from shifted_latents import Shifted, matched, shifted_latents

from scanpy_scvi.numerics.ica_rotation import ica_rotation
from scanpy_scvi.numerics.orthogonal_search import polar
from scanpy_scvi.numerics.sparse_rotation import N_STARTS, find_centroids, sparse_rotation

SETTINGS = {
    "250 cells, shift 5": {"n_cells": 250},
    "60 cells, shift 5, control": {"n_control": 600},
    "60 cells, shift 1-2, control": {"sizes": (1.0, 2.0), "n_control": 600},
    "60 cells, shift 0.3-1, control": {"sizes": (0.3, 1.0), "n_control": 600},
    "5-500 cells, shift 1-5": {"sizes": (1.0, 5.0), "spread": 1.0},
    "all shifts up, no control": {"one_sided": True},
    "30 dimensions, control": {"n_latent": 30, "n_perturbations": 100, "n_control": 600},
    "20 perturbations, control": {"n_perturbations": 20, "n_control": 600},
    "8 perturbations, control": {"n_perturbations": 8, "n_control": 600},
}


def fourth_powers(data: Shifted, control: int | None, seed: int, *, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """Varimax or quartimax of the weighted shifts: the matrix, and the shifts after it."""
    centroids = find_centroids(data.seen, data.groups, control)
    x, rng, best = centroids.weights[:, None] * centroids.shifts, np.random.default_rng(seed), (-np.inf, np.eye(1))
    for start in range(N_STARTS):
        turn = np.eye(x.shape[1]) if start == 0 else polar(rng.normal(size=(x.shape[1],) * 2))
        last = -np.inf
        for _ in range(500):
            entries = x @ turn
            mean = (entries**2).mean(0) if centred else 0.0
            value = float(((entries**2 - mean) ** 2).sum())
            if value <= last * (1 + 1e-9):
                break
            last, turn = value, polar(x.T @ (entries * (entries**2 - mean)))
        best = max(best, (last, turn), key=lambda found: found[0])
    return centroids.white.matrix @ best[1], centroids.shifts @ best[1]


def f1(data: Shifted, shifts: np.ndarray, errors: np.ndarray, columns: np.ndarray) -> float:
    """F1 of targets by the rule of `tl.rotate`."""
    called = np.abs(shifts[:, columns]) > np.maximum(0.5, 3 * errors[: len(shifts), None])
    true = data.shifts != 0
    return float(2 * (called & true).sum() / (called.sum() + true.sum()))


def row(method: str, data: Shifted, control: int | None, seed: int) -> tuple[float, float, float]:
    """Correlation, F1 and CPU seconds of one method."""
    start, n = time.process_time(), len(data.shifts)
    if method in {"l1", "ica"}:
        rotation = sparse_rotation if method == "l1" else ica_rotation
        found = rotation(data.seen, data.groups, control=control, random_state=seed)
        matrix, shifts, errors = found.matrix, found.shifts[:n], found.standard_errors
    else:
        matrix, shifts = fourth_powers(data, control, seed, centred=method == "varimax")
        errors = find_centroids(data.seen, data.groups, control).errors
    seconds = time.process_time() - start
    score, columns, _ = matched(data.z, data.seen @ matrix)
    return score, f1(data, shifts, errors, columns), seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    methods = ("l1", "varimax", "quartimax", "ica")
    print("MCC mean (least) / F1 / CPU s".ljust(34), *(m.ljust(26) for m in methods))
    for name, options in SETTINGS.items():
        cells = []
        for method in methods:
            rows = []
            for seed in range(seeds):
                data = shifted_latents(seed, **options)
                control = len(data.shifts) if options.get("n_control") else None
                rows.append(row(method, data, control, seed))
            score, targets, seconds = np.mean(rows, axis=0)
            cells.append(f"{score:.3f} ({min(r[0] for r in rows):.3f}) / {targets:.2f} / {seconds:.1f}".ljust(26))
        print(name.ljust(34), *cells, flush=True)


if __name__ == "__main__":
    main()
