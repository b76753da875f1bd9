"""MAGIC on the counts of an `.npz` of SciPy, in an environment with `magic-impute`.

    python tests/comparison/denoising_magic.py counts.npz denoised.npy

Writes (2, cells, genes), as Open Problems runs it both ways: counts are normalised to the same total before the square
root, or roots are; smoothed values are squared and multiplied by the total that was divided by. In the second way that
is the total of roots, by which squares should be multiplied twice: what comes out is nearly zero.
"""

import sys

import magic
import numpy as np
from scipy import sparse


def smoothed(x: np.ndarray, *, root_first: bool) -> np.ndarray:
    """MAGIC of roots of shares, back on the scale of counts."""
    x = np.sqrt(x) if root_first else x
    size = x.sum(1, keepdims=True)
    shares = x / size if root_first else np.sqrt(x / size)
    y = magic.MAGIC(solver="exact", verbose=False, random_state=0, n_jobs=1).fit_transform(shares, genes="all_genes")
    y = np.maximum(np.asarray(y), 0)
    return y**2 * size


if __name__ == "__main__":
    counts = sparse.load_npz(sys.argv[1]).toarray().astype(np.float64)
    both = [smoothed(counts, root_first=first) for first in (False, True)]
    np.save(sys.argv[2], np.stack(both).astype(np.float32))
