"""One pass over a matrix of any kind."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from scanpy_scvi.store import checks
from scanpy_scvi.store.survey import survey

COUNTS = np.random.default_rng(0).poisson(0.4, (40, 25))
MASK = np.arange(25) % 3 > 0
KINDS = {
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc_matrix": sparse.csc_matrix,
    "dense": np.asarray,
    "int64": lambda x: np.asarray(x, np.int64),
    "float64": lambda x: sparse.csr_matrix(x, dtype=np.float64),
}


def assert_right(seen, counts=COUNTS, mask=MASK):
    assert seen.defect is None
    np.testing.assert_array_equal(seen.cell_total, counts.sum(1))
    np.testing.assert_array_equal(seen.modelled_total, counts[:, mask].sum(1))
    np.testing.assert_array_equal(seen.gene_cells, (counts > 0).sum(0))
    assert seen.n_modelled_entries == (counts[:, mask] > 0).sum()
    assert seen.n_entries == (counts > 0).sum()
    assert seen.n_ones == (counts == 1).sum()
    assert seen.largest == counts.max()
    assert seen.zeros == pytest.approx((counts == 0).mean())
    np.testing.assert_array_equal(seen.sample.toarray(), counts[:, mask])


@pytest.mark.parametrize("kind", KINDS)
def test_totals_of_any_matrix(kind):
    matrix = KINDS[kind](COUNTS.astype(np.float32))
    assert_right(survey(ad.AnnData(matrix), matrix, None, MASK))


@pytest.mark.parametrize("kind", ["csr_matrix", "dense"])
def test_a_file_is_read_in_chunks(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "CHUNK", 7)
    ad.AnnData(KINDS[kind](COUNTS.astype(np.float32))).write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    try:
        assert_right(survey(adata, adata.X, None, MASK))
    finally:
        adata.file.close()


def test_the_defect_is_that_of_the_modelled_genes():
    counts = COUNTS.astype(np.float32)
    counts[2, 0] = 0.5  # gene 0 is not modelled
    adata = ad.AnnData(counts)
    assert survey(adata, adata.X, None, MASK).defect is None
    seen = survey(adata, adata.X, None, np.ones(25, bool))
    assert seen.defect is not None
    assert "non-integer values (first: 0.5)" in seen.defect
