"""A process that compiles the kernels and one that reads them from the disk compute the same bits."""

import os
import subprocess
import sys

import pytest

ALL = """
import hashlib
import numpy as np
from scanpy_scvi.numerics import count_product, negative_binomial, poisson, sparse, zero_inflated

rng = np.random.default_rng(0)
x = rng.poisson(rng.gamma(0.5, 2, (33, 217)))
indptr = np.r_[0, np.cumsum((x > 0).sum(1))].astype(np.int64)
indices, data = np.nonzero(x)[1].astype(np.int32), x[x > 0].astype(np.float32)
rows = sparse.take_rows(indptr, indices, data, np.arange(33))
logits, zero = (rng.normal(size=x.shape).astype(np.float32) for _ in range(2))
theta, row = rng.normal(size=(3, 217)).astype(np.float32), np.arange(33) % 3
library = np.log(x.sum(1)).astype(np.float32)
results = [
    *negative_binomial.softmax_head(rows, logits, library, theta, row)[:4],
    *zero_inflated.softmax_head(rows, logits, library, theta, row, zero),
    *poisson.softmax_head(rows, logits, library)[:3],
    count_product.log1p_product(rows, rng.normal(size=(217, 32)).astype(np.float32)),
    count_product.log1p_product_gradient(rows, rng.normal(size=(33, 32)).astype(np.float32), 217),
    sparse.to_dense(rows, 217, log1p=True),
]
print(*(hashlib.md5(np.ascontiguousarray(r).tobytes()).hexdigest() for r in results))
"""


@pytest.mark.slow
def test_compiled_and_cached_kernels_agree_to_the_bit(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", ALL], check=True, capture_output=True, text=True, env=environment).stdout
        for _ in range(2)
    ]
    assert len(runs[0].split()) == 15
    assert runs[0] == runs[1]
