"""A screen of knock-outs in interferon-stimulated THP-1 cells."""

from __future__ import annotations

from importlib.resources import as_file, files

import anndata as ad
import numpy as np
from scipy import sparse


def papalexi21() -> ad.AnnData:
    """Load UMI counts of THP-1 cells with one of 25 genes knocked out, after interferon gamma (ECCITE-seq).

    7,850 cells and 299 genes; part of the screen of Papalexi et al., as cut down for the examples of sceptre. IFNGR1,
    IFNGR2, JAK2 and STAT1 are one pathway, whose loss takes the response to interferon away; SMAD4 is of another one,
    and many of the others do nothing that 299 genes could show.

    How it was made: cells whose most abundant guide has at least 0.8 of the guides' UMIs; of these up to 300 of each
    target, and 1,000 with a guide without a target. Nothing was normalised: ``X`` holds the counts as published.

    Returns
    -------
    AnnData with

    - ``.X``: UMI counts, CSR, float32
    - ``.obs["perturbation"]``: the gene that was knocked out, or ``control`` (1,000 cells)
    - ``.obs["guide"]``: guide RNA
    - ``.obs["batch"]``: replicate, one of three
    - ``.uns["source"]``: repository, commit, file, licence and citation

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.papalexi21()
    >>> adata.shape, adata.obs["perturbation"].nunique()
    ((7850, 299), 26)

    References
    ----------
    Papalexi et al. (2021), Characterizing the molecular regulation of inhibitory immune checkpoints with multimodal
    single-cell screens, Nature Genetics 53:322-331, GEO GSE153056. From https://github.com/Katsevich-Lab/sceptredata,
    MIT licence, copyright 2024 sceptredata authors; its text lies beside the file.
    """
    with as_file(files(__package__) / "papalexi21.h5ad") as path:
        adata = ad.read_h5ad(path)
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)  # dense uint16 in the file, which compresses best
    return adata
