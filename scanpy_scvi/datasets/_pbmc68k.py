"""The blood cells that come with scanpy, as counts."""

from __future__ import annotations

from importlib.metadata import version

import anndata as ad
import numpy as np
import scanpy as sc
from scipy import sparse

# The values were stored with three decimals, so that undoing the logarithm misses a whole number by up to 0.08.
TOLERANCE = 0.1


def pbmc68k_counts() -> ad.AnnData:
    r"""Load UMI counts of 700 peripheral blood cells from the file that scanpy ships.

    :func:`scanpy.datasets.pbmc68k_reduced` holds log-normalised values r of 765 genes. The counts are recovered by

    .. math:: x_{ng} = \mathrm{round}\big((e^{r_{ng}} - 1) \, \ell_n / 10^4\big),

    where :math:`\ell_n` is ``obs["n_counts"]``, the cell's total over all genes. Where scanpy itself ships the counts
    (in ``layers["counts"]``), they are taken from there.

    Returns
    -------
    AnnData with

    - ``.X``: UMI counts, CSR, float32, 700 cells x 765 genes
    - ``.obs``: scanpy's columns, of which ``bulk_labels`` are ten cell types; ``n_counts`` counts all genes, also
      those that are not here
    - ``.uns``: scanpy's colours of ``bulk_labels`` and ``louvain``

    There is no batch in these data.

    Raises
    ------
    ValueError
        If the values that scanpy ships are not logarithms of normalised counts.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.pbmc68k_counts()
    >>> adata.X[:3, :4].toarray().astype(int).tolist()
    [[0, 0, 0, 1], [1, 0, 1, 0], [0, 0, 1, 0]]

    References
    ----------
    Zheng et al. (2017), Massively parallel digital transcriptional profiling of single cells, Nature Communications
    8:14049, https://doi.org/10.1038/ncomms14049.
    """
    reduced = sc.datasets.pbmc68k_reduced()
    if "counts" in reduced.layers:
        counts, names = reduced.layers["counts"], reduced.var_names
    else:
        counts, names = _undo_log1p(reduced), reduced.raw.var_names
    adata = ad.AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=reduced.obs.copy())
    adata.var_names = names.copy()
    for key in ("bulk_labels_colors", "louvain_colors"):
        if key in reduced.uns:
            adata.uns[key] = reduced.uns[key].copy()
    return adata


def _undo_log1p(reduced: ad.AnnData) -> sparse.csr_matrix:
    values = sparse.csr_matrix(reduced.raw.X, dtype=np.float64)
    totals = reduced.obs["n_counts"].to_numpy(np.float64)
    counts = values.copy()
    counts.data = np.expm1(values.data) * np.repeat(totals, np.diff(values.indptr)) / 1e4
    whole = np.rint(counts.data)
    residual = np.abs(counts.data - whole).max()
    if not residual <= TOLERANCE:
        msg = (
            f"sc.datasets.pbmc68k_reduced() of scanpy {version('scanpy')} does not give whole counts: one is "
            f"{residual:.2f} away from a whole number, at most {TOLERANCE} was expected. Use "
            "sv.datasets.cell_lines() instead, and please report this."
        )
        raise ValueError(msg)
    counts.data = whole
    counts.eliminate_zeros()
    return counts
