"""The same row gives the same bits wherever its arrays lie in memory."""

from __future__ import annotations

import numpy as np
import pytest

from scanpy_scvi.numerics.softmax import softmax_row


@pytest.mark.parametrize("n_genes", [1, 5, 33, 40, 63, 64, 65, 100])
def test_softmax_does_not_depend_on_the_distance_of_its_arrays(n_genes):
    """Compilers check at run time whether two arrays overlap a vector's width, and take another path if they do."""
    row = np.random.default_rng(n_genes).normal(size=n_genes).astype(np.float32)
    seen = set()
    for gap in (0, 4, 8, 16, 24, 500):
        memory = np.zeros(2 * n_genes + gap, np.float32)
        logits, rho = memory[:n_genes], memory[n_genes + gap :]
        logits[:] = row
        total = softmax_row(logits, rho)
        seen.add((total, rho.tobytes()))
    assert len(seen) == 1
