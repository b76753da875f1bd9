"""Five lung cancer lines in five libraries, with labels known from their genomes."""

from __future__ import annotations

from importlib.resources import as_file, files

import anndata as ad
import numpy as np
from scipy import sparse


def cell_lines() -> ad.AnnData:
    """Load UMI counts of five human lung cancer cell lines, sequenced in five libraries.

    1,021 cells and 2,000 genes; part of the mixology benchmark of Tian et al. Which line a cell belongs to was called
    from its SNPs, not from its expression, so that an integration can be scored against the truth. Two of the lines
    are missing from two of the libraries.

    How it was made: the five count tables restricted to their common genes, cells that demuxlet calls singlets, and
    genes seen in at least three cells (11,533); of these the 2,000 most variable ones
    (:func:`scanpy.pp.highly_variable_genes` with ``flavor="seurat", batch_key="batch"``, on counts normalised to
    10,000 per cell and log1p-transformed). Nothing was normalised: ``X`` holds the counts as published.

    Returns
    -------
    AnnData with

    - ``.X``: UMI counts, CSR, float32
    - ``.obs["batch"]``: library, ``celseq2_3cl`` (240 cells), ``celseq2_5cl_p1`` (156), ``celseq2_5cl_p2`` (163),
      ``celseq2_5cl_p3`` (252), ``dropseq_3cl`` (210)
    - ``.obs["protocol"]``: ``CEL-seq2`` or ``Drop-seq``
    - ``.obs["cell_type"]``: cell line, ``A549``, ``H1975``, ``H2228``, ``H838``, ``HCC827``
    - ``.var["ensembl"]``: Ensembl gene id; the names are gene symbols
    - ``.uns["source"]``: repository, commit, files, licence and citation

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> adata.shape
    (1021, 2000)
    >>> adata.obs["cell_type"].cat.categories.tolist()
    ['A549', 'H1975', 'H2228', 'H838', 'HCC827']

    References
    ----------
    Tian et al. (2019), Benchmarking single cell RNA-sequencing analysis pipelines using mixture control experiments,
    Nature Methods 16:479-487, https://doi.org/10.1038/s41592-019-0425-8, GEO GSE118767. Tables from
    https://github.com/LuyiTian/sc_mixology, MIT licence, copyright 2018 Luyi Tian; its text lies beside the file.
    """
    with as_file(files(__package__) / "cell_lines.h5ad") as path:
        adata = ad.read_h5ad(path)
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)  # dense uint16 in the file, which compresses best
    return adata
