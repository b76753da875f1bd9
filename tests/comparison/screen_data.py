"""Large screens, from files that are not here: Norman 2019 and Replogle 2022 as pertpy loads them, and a stand-in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse
from shifted_fits import Columns

import scanpy_scvi as sv

if TYPE_CHECKING:
    from pathlib import Path

CONTROL = "control"
N_GENES, N_CONTROLS, LEAST_CELLS = 2000, 2000, 25
"""Variable genes where the file marks none, control cells of Replogle, and cells of a perturbation."""
SEPARATORS = re.compile(r"[+,]")
CONTROLS = {"", "control", "ctrl", "non-targeting"}


class Fold(NamedTuple):
    """Perturbations that a fit does not see."""

    kind: str
    """What folds of a table have in common."""
    name: str
    held_out: frozenset[str]
    scored: frozenset[str]
    """Those of them that are asked for."""


class Screen(NamedTuple):
    """A screen, ready to be fitted; `adata.X` are counts."""

    name: str
    adata: ad.AnnData
    columns: Columns
    folds: tuple[Fold, ...]


def norman(path: Path, *, n_splits: int, in_batches: bool) -> Screen:
    """`pertpy.data.norman_2019()`: single genes and pairs; folds are pairs that are held out.

    As the code of SAMS-VAE has it: the genes that `var["highly_variable"]` marks, raw counts of `layers["counts"]`, a
    quarter of the pairs held out of each split, and the other pairs either in the fit or not.
    """
    adata = ad.read_h5ad(path)
    label = first_column(adata.obs, "perturbation_name", "guide_ids")
    adata.obs["perturbation"] = pd.Categorical([combined(x) for x in adata.obs[label].astype(str)])
    chosen = adata.var["highly_variable"].to_numpy(bool) if "highly_variable" in adata.var else None
    adata = with_counts(
        adata, first_column(adata.obs, "gemgroup", "gem_group", "batch") if in_batches else None, chosen
    )
    return Screen("norman_2019", adata, columns(adata), pair_folds(adata, n_splits))


def pair_folds(adata: ad.AnnData, n_splits: int) -> tuple[Fold, ...]:
    """For each split a quarter of the pairs, and the same with all other pairs left out as well."""
    pairs = sorted(label for label in adata.obs["perturbation"].unique() if "+" in label)
    found = []
    for split in range(n_splits):
        order = np.random.default_rng(split).permutation(pairs)
        test = frozenset(order[: -(-len(pairs) // 4)].tolist())
        found += [Fold("other pairs in the fit", f"pairs {split}", test, test)]
        found += [Fold("no pair in the fit", f"pairs {split}, single genes", frozenset(pairs), test)]
    return tuple(found)


def replogle(path: Path, table: Path, *, genes: Path | None, in_batches: bool) -> Screen:
    """`pertpy.data.replogle_2022_k562_gwps()`: genes whose knock-down does much; folds are pathways.

    As the code of sVAE+ has it: perturbations and genes of the clustering in supplementary table 3 of Replogle et al.
    `table` is a CSV of it with the columns `perturbation` and `cluster`, the latter a name where the cluster is a fold
    (exosome, spliceosome, mediator, nucleotide excision repair, 40S, 39S, 60S and mitochondrial protein translocation
    there) and empty elsewhere; `genes`, a file with a gene a line. That code has no control; as that of SAMS-VAE, this
    takes 2,000 cells with non-targeting guides at random.
    """
    listed = pd.read_csv(table, dtype=str, keep_default_na=False)
    lazy = ad.read_h5ad(path, backed="r")
    labels = control_column(lazy.obs).astype(str).replace({"non-targeting": CONTROL}).to_numpy()
    controls = np.flatnonzero(labels == CONTROL)
    few = np.random.default_rng(0).permutation(controls)[:N_CONTROLS]
    rows = np.sort(np.concatenate([np.flatnonzero(np.isin(labels, listed["perturbation"])), few]))
    adata = lazy[rows].to_memory()
    lazy.file.close()
    adata.obs["perturbation"] = pd.Categorical(labels[rows])
    chosen = None if genes is None else adata.var_names.isin(genes.read_text().split())
    adata = with_counts(adata, first_column(adata.obs, "batch", "gem_group") if in_batches else None, chosen)
    there = set(adata.obs["perturbation"])
    clusters = {name: part & there for name, part in listed.groupby("cluster")["perturbation"].agg(frozenset).items()}
    folds = tuple(Fold("pathways", str(name), part, part) for name, part in clusters.items() if name and part)
    return Screen("replogle_2022_k562_gwps", adata, columns(adata), folds)


def stand_in() -> Screen:
    """A small simulated screen with pairs; folds of both kinds."""
    adata = sv.datasets.simulate_perturbations(
        n_perturbations=24, n_combinations=12, n_latent=6, n_genes=100, cells_per_perturbation=80, random_state=0
    )
    names = adata.uns.pop("simulation")["perturbations"].tolist()
    in_pairs = {part for label in adata.obs["perturbation"].unique() if "+" in label for part in label.split("+")}
    pathway = frozenset(name for name in names if name not in in_pairs)
    folds = (*pair_folds(adata, 1), Fold("pathways", "pathway", pathway, pathway))
    return Screen("stand-in", adata, columns(adata), folds)


def columns(adata: ad.AnnData) -> Columns:
    """Columns that the loaders write."""
    return Columns("perturbation", CONTROL, "batch" if "batch" in adata.obs else None)


def combined(label: str) -> str:
    """`"A+B"` with sorted parts, whatever the separator; controls beside a gene are left out."""
    parts = sorted({part.strip() for part in SEPARATORS.split(label)} - CONTROLS)
    return "+".join(parts) or CONTROL


def first_column(obs: pd.DataFrame, *names: str) -> str:
    """Return the first of some columns that is there."""
    found = [name for name in names if name in obs]
    if not found:
        msg = f"`obs` has none of the columns {', '.join(names)}, but {', '.join(map(str, obs.columns))}."
        raise KeyError(msg)
    return found[0]


def control_column(obs: pd.DataFrame) -> pd.Series:
    """The first column of perturbations that names non-targeting guides; in some files the first ones do not."""
    for name in ("perturbation", "gene"):
        if name in obs and (obs[name].astype(str) == "non-targeting").any():
            return obs[name]
    msg = "`obs` has no column `perturbation` or `gene` with 'non-targeting' among its values."
    raise KeyError(msg)


def with_counts(adata: ad.AnnData, batch: str | None, chosen: np.ndarray | None) -> ad.AnnData:
    """Counts of the chosen genes, or of variable ones, of perturbations with enough cells."""
    counts = sparse.csr_matrix(adata.layers.get("counts", adata.X)).astype(np.float32)
    obs = pd.DataFrame({"perturbation": adata.obs["perturbation"].astype(str).to_numpy()}, index=adata.obs_names)
    if batch is not None:
        obs["batch"] = adata.obs[batch].astype(str).to_numpy()
    bare = ad.AnnData(counts, obs=obs.astype("category"), var=pd.DataFrame(index=adata.var_names))
    bare.var_names_make_unique()
    n_cells = obs["perturbation"].map(obs["perturbation"].value_counts())
    bare = bare[(n_cells >= LEAST_CELLS).to_numpy()].copy()
    if chosen is None:
        logs = sc.pp.log1p(sc.pp.normalize_total(bare, copy=True), copy=True)
        sc.pp.highly_variable_genes(logs, n_top_genes=N_GENES)
        chosen = logs.var["highly_variable"].to_numpy()
    bare = bare[:, chosen]
    return bare[np.asarray(bare.X.sum(1)).ravel() > 0].copy()
