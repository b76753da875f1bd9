"""What every system of the family's table is asked, the same for ours and others'."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    import anndata as ad

MIXED_IN = 0.01
"""Share of the average cell in every prediction, since a zero would cost infinitely much."""


def halves(test: ad.AnnData, seed: int) -> tuple[ad.AnnData, np.ndarray]:
    """Each molecule of held-out cells goes to one of two halves: one is shown, the other predicted."""
    rng = np.random.default_rng(seed)
    x = sparse.csr_matrix(test.X).astype(np.int64)
    shown = x.copy()
    shown.data = rng.binomial(x.data, 0.5)
    hidden = (x - shown).toarray()
    for cell in np.flatnonzero(np.asarray(shown.sum(1)).ravel() == 0):
        shown[cell, int(hidden[cell].argmax())] = 1  # no system reads an empty cell
    half = test.copy()
    half.X = sparse.csr_matrix(shown, dtype=np.float32)
    half.X.eliminate_zeros()
    return half, hidden


def nats_per_molecule(shares: np.ndarray, hidden: np.ndarray, average: np.ndarray) -> float:
    """-sum x log rho over the number of molecules, with the predicted shares rho of genes."""
    rho = np.maximum(shares.astype(np.float64), 0)
    rho = (1 - MIXED_IN) * rho / np.maximum(rho.sum(1, keepdims=True), 1e-300) + MIXED_IN * average / average.sum()
    return float(-(hidden * np.log(rho)).sum() / hidden.sum())


def forget_peak() -> float:
    """Start the kernel's record of the largest resident memory anew; the memory now, MB (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """Largest resident memory since, MB."""
    return _status("VmHWM")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
