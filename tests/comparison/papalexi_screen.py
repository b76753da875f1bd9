"""Real screens with known answers: which latent dimensions knock-outs hit, and whether others can be added later.

    SCANPY_SCVI_DATA=... OMP_NUM_THREADS=1 python tests/comparison/papalexi_screen.py --out papalexi.jsonl
    SCANPY_SCVI_DATA=... OMP_NUM_THREADS=1 python tests/comparison/papalexi_screen.py --out datlinger.jsonl
        --data datlinger_scifi_tcr --tasks whole null
    python tests/comparison/papalexi_screen.py --out papalexi.jsonl --table

`tl.svae` with its defaults, against the same with all gates open, a plain autoencoder, and that rotated. Tasks:

whole      All cells. Targets of the four interferon receptor and signal genes, of SMAD4, and of eight targets that are
           known to change nothing; predicted against observed fold changes; agreement of the seeds' latent states.
halves     One fit to each half of the cells; both are asked for all cells.
transfer   Perturbations left out, and appended by `tl.svae_transfer` with half of their cells. The other half says
           whose shift explains it, and how much likelier it is than under the prior of control cells.
null       A third of the control cells, relabelled at random before the fit as perturbations that do nothing.
null guides  The same, with every second non-targeting guide as a perturbation.

Appends a JSON line for each (data, task, method, seed) and skips what is there; latent states lie in a folder beside
it. `--quick` tries everything on a small simulated screen with the same names.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import numpy as np
import scanpy as sc
import torch
from papalexi_tables import tables
from result_lines import append_line, read_lines
from shifted_fits import (
    METHODS,
    UNSHIFTED,
    Columns,
    Decoded,
    by_label,
    cosine,
    evidence,
    fit,
    gain,
    jaccard,
    latent,
    open_share,
    relabelled,
    shifts,
    targets,
    transfer,
    with_null,
)

import scanpy_scvi as sv
from scanpy_scvi.numerics.shift_rule import ShiftRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd
    from shifted_fits import Evidence

MODULE = ("IFNGR1", "IFNGR2", "JAK2", "STAT1")
SILENT = ("ATF2", "CD86", "CAV1", "ETV7", "MARCH8", "POU2F2", "PDCD1LG2", "STAT5A")
KNOWN = [(name, gene) for name in MODULE for gene in ("PSMB9", "STAT1", "UBE2L6")] + [("SMAD4", "FN1")]
"""Perturbations and genes whose fold changes are known."""
LEFT_OUT = (("JAK2", "STAT1"), ("SMAD4",))
KIN = ("IFNGR1", "IFNGR2")
"""Whose targets the first of these should have."""
COLUMNS = Columns("perturbation", "control", "batch")
SURE, N_BEST, N_SAMPLES = 0.8, 80, 100
NULL_SHARES = (0.025, 0.025, 0.05, 0.05, 0.1, 0.1)
"""Sizes of the pseudo-perturbations, as shares of the control."""
SEEDS = {"whole": 5, "halves": 3, "transfer": 3, "null": 3, "null guides": 3}
"""How many of the seeds each task has."""
QUICK = {"max_epochs": 10, "n_hidden": 64}


class Case(NamedTuple):
    """One line to be measured."""

    adata: ad.AnnData
    method: str
    seed: int
    options: dict[str, Any]
    folder: Path
    """Where latent states of all cells are kept."""

    def fitted(self, adata: ad.AnnData, seed: int | None = None) -> ad.AnnData:
        """A copy of some cells with the fit."""
        adata = adata.copy()
        fit(adata, COLUMNS, self.method, self.seed if seed is None else seed, self.options)
        return adata


def load(name: str) -> ad.AnnData:
    """Cells of a screen."""
    adata = ad.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / f"{name}.h5ad")
    if "guide_fraction" in adata.obs:
        adata = adata[adata.obs["guide_fraction"] >= SURE].copy()
    return adata


def stand_in() -> ad.AnnData:
    """A simulated screen whose perturbations and some genes have the names that are asked for."""
    names = [*MODULE, "SMAD4", *SILENT, "IRF1", "SPI1", "CUL3"]
    adata = sv.datasets.simulate_perturbations(n_perturbations=len(names), n_latent=6, cells_per_perturbation=60)
    old = adata.uns.pop("simulation")["perturbations"]
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["perturbation"] = labels.replace(dict(zip(old, names, strict=True))).astype("category")
    guides = np.random.default_rng(0).integers(4, size=adata.n_obs).astype(str)
    adata.obs["guide"] = [f"{label}g{guide}" for label, guide in zip(labels, guides, strict=True)]
    genes = list(dict.fromkeys(gene for _, gene in KNOWN))
    adata.var_names = [*genes, *adata.var_names[len(genes) :]]
    return adata


def of_module(hit: dict[str, frozenset[str]]) -> dict[str, Any]:
    """How much the interferon genes share, with each other and with others; and SMAD4 with them."""
    module = [name for name in MODULE if name in hit]
    others = [name for name in hit if name not in module]
    union = frozenset().union(*(hit[name] for name in module))
    pairs, across = itertools.combinations(module, 2), list(itertools.product(module, others))
    return {
        "within": mean(jaccard(hit[a], hit[b]) for a, b in pairs),
        "across": mean(jaccard(hit[a], hit[b]) for a, b in across),
        "across_open": mean(jaccard(hit[a], hit[b]) for a, b in across if hit[b]),
        "smad4": len(hit.get("SMAD4", ())),
        "smad4_own": len(hit.get("SMAD4", frozenset()) - union),
        "silent_open": sum(bool(hit[name]) for name in SILENT if name in hit),
    }


def mean(values: Iterator[float]) -> float | None:
    """Mean; None of nothing."""
    found = list(values)
    return float(np.mean(found)) if found else None


def observed(adata: ad.AnnData, name: str, cells: np.ndarray | None = None) -> np.ndarray:
    """log2 fold change of mean counts per 10,000 against control, for each gene."""
    x = sc.pp.normalize_total(adata, target_sum=1e4, inplace=False)["X"]
    labels = adata.obs["perturbation"].to_numpy()
    mine = labels == name if cells is None else cells
    there, here = (np.asarray(x[rows].mean(0)).ravel() for rows in (mine, labels == COLUMNS.control))
    return np.log2(np.maximum(there, 1e-3) / np.maximum(here, 1e-3))


def predicted(control: Decoded, shift: np.ndarray) -> np.ndarray:
    """log2 fold change of what control cells are expected to express, with and without a shift."""
    return np.log2(control.mean_expression(shift) / control.mean_expression(np.zeros_like(shift)))


def best_expressed(adata: ad.AnnData) -> np.ndarray:
    """Columns of the genes with the most counts."""
    return np.argsort(-np.asarray(adata.X.sum(0)).ravel(), kind="stable")[:N_BEST]


def fold_changes(adata: ad.AnnData, table: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Known fold changes as [predicted, observed], and the correlation over the best expressed genes."""
    control, best, found = Decoded(adata, COLUMNS, seed), best_expressed(adata), {}
    for name in dict.fromkeys(name for name, _ in KNOWN):
        if name not in table.index:
            continue
        guess, truth = predicted(control, table.loc[name].to_numpy(np.float32)), observed(adata, name)
        for gene in (gene for of, gene in KNOWN if of == name):
            column = adata.var_names.get_loc(gene)
            found[f"{name} {gene}"] = [float(guess[column]), float(truth[column])]
        found[f"{name} r"] = correlation(guess[best], truth[best])
    return found


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's; 0 where one does not vary."""
    return float(np.corrcoef(first, second)[0, 1]) if np.ptp(first) > 0 and np.ptp(second) > 0 else 0.0


def finite(adata: ad.AnnData) -> bool:
    """Whether nothing that was found is NaN or infinite."""
    entry = adata.uns["svae"]
    tables = [entry["effects"], entry["targets"][["shift", "standard_error", "probability"]]]
    programs = adata.varm["svae_programs"][adata.var["svae_modelled"]]
    arrays = [adata.obsm["X_svae"], programs, *(t.to_numpy(float) for t in tables)]
    return all(bool(np.isfinite(x).all()) for x in arrays)


def agreement(first: np.ndarray, second: np.ndarray, moved: np.ndarray) -> dict[str, float]:
    """MCC of two fits' states of the same cells, of all dimensions and of those with a target in the first."""
    match = sv.metrics.mcc(first, second)
    return {"mcc": match.mcc, "mcc_moved": float(np.abs(match.correlations[moved]).mean()) if moved.any() else 0.0}


def moved(adata: ad.AnnData) -> np.ndarray:
    """Which dimensions are anyone's target."""
    hit = frozenset().union(*targets(adata).values())
    return np.array([column in hit for column in shifts(adata).columns])


def own_null(adata: ad.AnnData) -> float | None:
    """Share of the fit's own parts of the control with a shift beyond its rule."""
    entry = adata.uns["svae"]
    if "null_shifts" not in entry:
        return None
    return float(ShiftRule(**entry["rule"]).opens(entry["null_shifts"], entry["null_errors"]).any(1).mean())


def whole(case: Case) -> Iterator[dict[str, Any]]:
    """All cells."""
    adata = case.fitted(case.adata)
    hit = targets(adata)
    line: dict[str, Any] = {"finite": finite(adata), "own_null": own_null(adata)}
    line |= {"open": sum(map(len, hit.values())), "claimed": sum(map(bool, hit.values())), "of": len(hit)}
    line["targets"] = {name: sorted(found) for name, found in hit.items()}
    if set(MODULE) <= set(hit):
        line |= of_module(hit)
        line["fold_changes"] = fold_changes(adata, shifts(adata, every=case.method in UNSHIFTED), case.seed)
    path = case.folder / f"{case.method}_{case.seed}.npz"
    others = [np.load(p)["z"] for p in sorted(case.folder.glob(f"{case.method}_*.npz")) if p != path]
    pairs = [agreement(adata.obsm["X_svae"], z, moved(adata)) for z in others]
    line |= {f"{key}s": [pair[key] for pair in pairs] for key in ("mcc", "mcc_moved")}
    case.folder.mkdir(parents=True, exist_ok=True)
    np.savez(path, z=adata.obsm["X_svae"])
    yield line


def halves(case: Case) -> Iterator[dict[str, Any]]:
    """Fits to two halves of the cells."""
    labels = case.adata.obs["perturbation"].astype(str).to_numpy()
    half = by_label(labels, 0.5, np.random.default_rng(case.seed))
    fits = [case.fitted(case.adata[part]) for part in (half, ~half)]
    first, second = (latent(f, case.adata, COLUMNS) for f in fits)
    match, of = sv.metrics.mcc(first, second), targets(fits[0])
    order = [str(j) for j in match.assignment]
    names = list(of)
    one, two = (np.array([[j in targets(f)[n] for j in shifts(f).columns] for n in names]) for f in fits)
    f1 = sv.metrics.target_f1(one, two, match.assignment).f1 if one.any() else None
    yield agreement(first, second, moved(fits[0])) | {"target_f1": f1, "assignment": order}


def transferred(case: Case) -> Iterator[dict[str, Any]]:
    """Perturbations left out of the fit and appended."""
    for left_out in LEFT_OUT:
        away = case.adata.obs["perturbation"].isin(left_out).to_numpy()
        labels = case.adata.obs["perturbation"].astype(str).to_numpy()
        given = by_label(labels, 0.5, np.random.default_rng(case.seed)) & away
        reference = case.fitted(case.adata[~away])
        new = transfer(case.adata[given], reference)
        test = case.adata[away & ~given]
        weights = evidence(reference, test, COLUMNS, n_samples=N_SAMPLES, seed=case.seed)
        means, control = latent(reference, test, COLUMNS), Decoded(reference, COLUMNS, case.seed)
        for name in left_out:
            mine = (test.obs["perturbation"] == name).to_numpy()
            line = landing(new, reference, name, means[mine].mean(0)) | likelier(
                new, reference, name, weights.of(mine), flat=case.method in UNSHIFTED
            )
            best, guess = best_expressed(reference), predicted(control, every_shift(new, name))
            truth = observed(case.adata, name, away & ~given & (labels == name))
            line["fold_change_r"] = correlation(guess[best], truth[best])
            yield {"left_out": name, "cells": int(mine.sum()), **line}


def every_shift(adata: ad.AnnData, name: str) -> np.ndarray:
    """Shift of a perturbation, no gate closed."""
    return shifts(adata, every=True).loc[name].to_numpy(np.float32)


def landing(new: ad.AnnData, reference: ad.AnnData, name: str, state: np.ndarray) -> dict[str, Any]:
    """Where a perturbation that was appended lies among those of the fit."""
    hit, table = targets(new), shifts(new)
    known = shifts(reference).index
    near = {other: cosine(state, table.loc[other].to_numpy()) for other in known}
    return {
        "targets": sorted(hit[name]),
        "kin_jaccard": mean(jaccard(hit[name], hit[other]) for other in KIN),
        "other_jaccard": mean(jaccard(hit[name], hit[other]) for other in known if other not in MODULE),
        "kin_cosine": mean(cosine(table.loc[name].to_numpy(), table.loc[other].to_numpy()) for other in KIN),
        "kin_cosine_held_out": mean(near[other] for other in KIN),
        "nearest": max(near, key=near.__getitem__),
    }


def likelier(new: ad.AnnData, reference: ad.AnnData, name: str, weights: Evidence, *, flat: bool) -> dict[str, Any]:
    """Nats that a cell held out gains over the prior of control cells, by its own shift and by those of others."""
    table = shifts(new)
    own = 0.0 if flat else gain(weights, table.loc[name].to_numpy(np.float32))
    others = {other: gain(weights, table.loc[other].to_numpy(np.float32)) for other in shifts(reference).index}
    return {
        "bound": sv.metrics.iwelbo(weights.log_weights).mean,
        "gain": own,
        "gain_every": gain(weights, every_shift(new, name)),
        "gain_kin": mean(others[other] for other in KIN),
        "best_other": max(others, key=others.__getitem__),
        "gain_best_other": max(others.values()),
    }


def null(case: Case) -> Iterator[dict[str, Any]]:
    """Control cells relabelled at random."""
    adata, names = with_null(case.adata, COLUMNS, NULL_SHARES, case.seed)
    adata = case.fitted(adata)
    yield {"open_share": open_share(adata, names), "pseudo": len(names)}


def null_guides(case: Case) -> Iterator[dict[str, Any]]:
    """Every second guide of the control as a perturbation; which ones depends on the seed."""
    labels = case.adata.obs["perturbation"].astype(str).to_numpy().astype(object)
    guides = case.adata.obs["guide"].astype(str).to_numpy()
    names = np.unique(guides[labels == COLUMNS.control])
    chosen = np.random.default_rng(case.seed).permutation(names)[: len(names) // 2]
    mine = np.isin(guides, chosen) & (labels == COLUMNS.control)
    labels[mine] = guides[mine]
    adata = case.fitted(relabelled(case.adata, COLUMNS, labels))
    yield {"open_share": open_share(adata, chosen), "pseudo": len(chosen)}


TASKS: dict[str, Callable[[Case], Iterator[dict[str, Any]]]] = {
    "whole": whole,
    "halves": halves,
    "transfer": transferred,
    "null": null,
    "null guides": null_guides,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="papalexi_eccite")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    sc.settings.verbosity = 0
    lines = read_lines(args.out)
    if args.table:
        print(tables(lines))
        return
    name = "stand-in" if args.quick else args.data
    done = {(line["data"], line["task"], line["method"], line["seed"]) for line in lines}
    adata, folder = stand_in() if args.quick else load(name), args.out.with_suffix("") / name
    for task, method in itertools.product(args.tasks, args.methods):
        for seed in args.seeds[: SEEDS[task]]:
            if (name, task, method, seed) in done:
                continue
            case, start = Case(adata, method, seed, QUICK if args.quick else {}, folder), time.process_time()
            found = list(TASKS[task](case))
            seconds = time.process_time() - start
            for line in found:
                line = {"data": name, "task": task, "method": method, "seed": seed, "seconds": seconds, **line}
                append_line(args.out, line)
                print(line, flush=True)


if __name__ == "__main__":
    main()
