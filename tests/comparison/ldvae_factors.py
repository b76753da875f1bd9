"""What the factors of LDVAE mean in blood progenitors, and which of them other seeds find.

    SCANPY_SCVI_DATA=... OMP_NUM_THREADS=1 python tests/comparison/ldvae_factors.py

Prints two tables for `paul15`. The first says of each factor of one fit which genes, known programmes and lineages lie
at its ends. A programme is a short list of genes known for a lineage; its score at a factor is the probability that a
gene of the list has a larger loading than a gene that is in no list (0.5: no relation, 1: all at the upper end, 0: all
at the lower). The second matches the factors of the other fits to those of the first, one to one, by the absolute
correlation of their loadings. Below it stands what a rotation of the factors does not change: the space of all
loadings, and the loadings of the step from other cells to a lineage, W (mean z of the lineage - mean z of the others).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc
from scipy.linalg import subspace_angles
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import roc_auc_score

import scanpy_scvi as sv

if TYPE_CHECKING:
    import anndata as ad

PROGRAMMES = {
    "erythroid": ["Hba-a2", "Hbb-b1", "Car1", "Car2", "Klf1", "Gata1", "Epor", "Gypa", "Blvrb", "Cpox"],
    "granulocyte": ["Mpo", "Elane", "Prtn3", "Ctsg", "Cebpe", "Gstm5", "Csf3r", "S100a8"],
    "monocyte": ["Csf1r", "Irf8", "Ly86", "Ly6c2", "F13a1"],
    "megakaryocyte": ["Pf4", "Itga2b", "Vwf", "Gp9", "Rgs18"],
    "basophil": ["Prss34", "Mcpt8"],
    "eosinophil": ["Epx", "Prg2"],
    "antigen presentation": ["Cd74", "H2-Aa"],
    "stem and progenitor": ["Cd34", "Flt3", "Dntt", "Gata2"],
}
"""Genes known for a lineage, those that the data have."""
RECURS = 0.8
"""Absolute correlation of loadings from which two factors are taken for the same."""


class Factors(NamedTuple):
    """One fit."""

    z: np.ndarray
    """Cells x factors."""
    loadings: pd.DataFrame
    """Modelled genes x factors."""
    explained: np.ndarray


def fit(adata: ad.AnnData, seed: int) -> Factors:
    """Fit with the defaults."""
    sv.tl.ldvae(adata, mask_var="counted", normalized=False, progress=False, random_state=seed)
    loadings = pd.DataFrame(adata.varm["ldvae_loadings"], index=adata.var_names)[adata.var["ldvae_modelled"].to_numpy()]
    return Factors(adata.obsm["X_ldvae"].copy(), loadings, adata.uns["ldvae"]["explained_variance_ratio"].copy())


def programme_scores(loadings: pd.DataFrame) -> pd.DataFrame:
    """Programmes x factors: where the genes of each lie among the loadings."""
    listed = {gene for genes in PROGRAMMES.values() for gene in genes}
    others = ~loadings.index.isin(listed)
    scores = {}
    for name, genes in PROGRAMMES.items():
        own = loadings.index.isin(genes)
        rows = own | others
        scores[name] = [roc_auc_score(own[rows], loadings.loc[rows, d]) for d in loadings]
    return pd.DataFrame(scores, index=loadings.columns).T


def lineage_correlations(z: np.ndarray, lineage: pd.Series) -> pd.DataFrame:
    """Lineages x factors: correlation of the factor with membership."""
    member = pd.get_dummies(lineage).astype(float)
    return pd.DataFrame(np.corrcoef(z.T, member.T)[z.shape[1] :, : z.shape[1]], index=member.columns)


def meaning(found: Factors, lineage: pd.Series) -> str:
    """Markdown: the ends of each factor."""
    scores, correlations = programme_scores(found.loadings), lineage_correlations(found.z, lineage)
    rows = [
        "| factor | explains | genes up | genes down | programme up | programme down | lineages |",
        "|---" * 7 + "|",
    ]
    for d in found.loadings:
        order = found.loadings[d].sort_values()
        strong = correlations[d][correlations[d].abs() > 0.3].sort_values(key=np.abs, ascending=False)
        best, least = scores[d].idxmax(), scores[d].idxmin()
        columns = [
            f"{d}",
            f"{found.explained[d]:.2f}",
            " ".join(order.index[:-7:-1]),
            " ".join(order.index[:6]),
            f"{best} {scores.loc[best, d]:.2f}",
            f"{least} {scores.loc[least, d]:.2f}",
            ", ".join(f"{name} {value:+.2f}" for name, value in strong.items()),
        ]
        rows.append("| " + " | ".join(columns) + " |")
    return "\n".join(rows)


def matched(first: Factors, other: Factors) -> np.ndarray:
    """Absolute correlation of each factor's loadings with those of the factor of another fit that it is matched to."""
    k = first.loadings.shape[1]
    similarity = np.abs(np.corrcoef(first.loadings.T, other.loadings.T)[:k, k:])
    return similarity[linear_sum_assignment(-similarity)]


def lineage_step(found: Factors, lineage: pd.Series, name: str) -> np.ndarray:
    """Loadings of the step from all other cells to a lineage."""
    own = (lineage == name).to_numpy()
    return found.loadings.to_numpy() @ (found.z[own].mean(0) - found.z[~own].mean(0))


def recurrence(fits: list[Factors], seeds: list[int], lineage: pd.Series) -> str:
    """Markdown: which factors of the first fit the others have."""
    large = lineage.value_counts().index[lineage.value_counts() >= 30]
    found = np.stack([matched(fits[0], other) for other in fits[1:]])
    rows = [
        "| factor | " + " | ".join(f"seed {seed}" for seed in seeds[1:]) + " | recurs |",
        "|---" * (len(seeds) + 1) + "|",
    ]
    for d, values in enumerate(found.T):
        rows.append(
            f"| {d} | " + " | ".join(f"{v:.2f}" for v in values) + f" | {'yes' if (values > RECURS).all() else 'no'} |"
        )
    spaces = [np.cos(subspace_angles(fits[0].loadings.to_numpy(), f.loadings.to_numpy())) ** 2 for f in fits[1:]]
    steps = [[lineage_step(f, lineage, name) for name in large] for f in fits]
    alike = [[np.corrcoef(a, b)[0, 1] for a, b in zip(steps[0], other, strict=True)] for other in steps[1:]]
    rows.append("| steps to lineages, least | " + " | ".join(f"{min(values):.3f}" for values in alike) + " | |")
    rows.append("| shared space | " + " | ".join(f"{s.sum():.1f} of {len(s)}" for s in spaces) + " | |")
    weighted = (found.min(0) > RECURS) @ fits[0].explained / fits[0].explained.sum()
    rows.append(f"\n{(found.min(0) > RECURS).sum()} of {found.shape[1]} recur; of what is explained, {weighted:.2f}.")
    return "\n".join(rows)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    sc.settings.verbosity = 0
    adata = sc.read_h5ad(Path(os.environ.get("SCANPY_SCVI_DATA", ".")) / "paul15.h5ad")
    adata.var["counted"] = np.asarray(adata.X.mean(0)).ravel() > 0.03
    fits = [fit(adata, seed) for seed in args.seeds]
    print(meaning(fits[0], adata.obs["lineage"]), end="\n\n")
    print(recurrence(fits, args.seeds, adata.obs["lineage"]))


if __name__ == "__main__":
    main()
