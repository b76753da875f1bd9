"""The protocol for large screens: what a fit says of cells and perturbations that it has not seen.

    OMP_NUM_THREADS=1 python tests/comparison/perturbation_protocol.py --out standin.jsonl
    ... --out norman.jsonl --norman norman_2019.h5ad [--splits 5]
    ... --out replogle.jsonl --replogle replogle_2022_k562_gwps.h5ad --clusters table3.csv [--gene-list genes.txt]
    ... --out norman.jsonl --table

Without a file, a small simulated screen is taken. The files are those that `pertpy.data.norman_2019()` and
`pertpy.data.replogle_2022_k562_gwps()` download; nothing is downloaded here. For each fold some perturbations are held
out: a quarter of the pairs of genes of Norman et al. (with the other pairs in the fit, or no pair), or one pathway of
Replogle et al. Every figure is of cells that neither the fit nor a shift has seen, a fifth of those of the fit's own
perturbations and half of the others:

seen         Perturbations of the fit; for pairs, the sum of the two shifts.
transferred  Perturbations held out, appended by `tl.svae_transfer` with the other half of their cells, in one piece.
composed     The same pairs as the sum of the shifts of their genes, of which none of their cells knows.

Bound: importance-weighted, with `--samples` draws, mean over perturbations; gain: that less the bound under the prior
of control cells. Effects are mean differences of log2(1 + counts per 10,000) to control, and their correlation is
Pearson's over all genes, and over the 20 that change most; rank is the share of the other perturbations whose effect
is nearer to the prediction than that of the right one (0.5 by chance). `null`: share of pseudo-perturbations of
control cells, relabelled before the fit, with a target. `MCC`: agreement of the latent states of those cells between
seeds. Baselines have effects alone: differences of means in gene space, the same in principal components, and one
average for all.

The plain autoencoder has no shifts in its prior, and no gain; `all gates open` is the gain of shifts that are estimated
afterwards, without gates, and its effects are of these. Turning its latent space changes what its prior and its
posteriors mean, and with them the bound.

Appends a JSON line for each (data, fold, method, seed) and skips what is there; latent states lie in a folder beside.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import torch
from result_lines import append_line, read_lines
from screen_data import CONTROL, Fold, Screen, norman, replogle, stand_in
from shifted_fits import (
    METHODS,
    UNSHIFTED,
    Decoded,
    Evidence,
    by_label,
    evidence,
    fit,
    latent,
    log_counts,
    open_share,
    relabelled,
    shifts,
    transfer,
    with_null,
)
from sklearn.decomposition import TruncatedSVD

import scanpy_scvi as sv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BASELINES = ("gene space", "principal components", "average effect")
GROUPS = ("seen", "transferred", "composed")
TEST_SHARE, N_COMPONENTS, LEAST_CELLS = 0.2, 15, 5
NULL_SHARES = (0.05, 0.05, 0.1, 0.1)
ONE_PIECE = " & "
"""Between the genes of a pair that is appended as a perturbation of its own."""
QUICK = {"max_epochs": 10}


class Split(NamedTuple):
    """Cells of one fold; the same for all methods and seeds."""

    train: ad.AnnData
    given: ad.AnnData
    """Half of the cells of perturbations held out; pairs in one piece."""
    test: ad.AnnData
    """Cells that only scores see, with their labels."""
    null: list[str]
    """Pseudo-perturbations among the training cells."""

    def labels(self, group: str, known: set[str]) -> list[str]:
        """Perturbations of a group with enough cells to be scored."""
        n_cells = self.test.obs["perturbation"].value_counts()
        away = {label.replace(ONE_PIECE, "+") for label in self.given.obs["perturbation"].unique()}
        enough = {label for label in n_cells.index[n_cells >= LEAST_CELLS] if label != CONTROL}
        parts = {label: set(label.split("+")) for label in enough}
        chosen = {
            "seen": [label for label in enough - away if parts[label] <= known],
            "transferred": enough & away,
            "composed": [label for label in enough & away if "+" in label and parts[label] <= known],
        }
        return sorted(chosen[group])


def split(screen: Screen, fold: Fold) -> Split:
    """Cells to fit, to append and to score."""
    rng = np.random.default_rng(crc32(fold.name.encode()))
    labels = screen.adata.obs["perturbation"].astype(str).to_numpy()
    away, scored = (np.isin(labels, list(names)) for names in (fold.held_out, fold.scored))
    given = scored & by_label(labels, 0.5, rng)
    test = (scored & ~given) | (~away & by_label(labels, TEST_SHARE, rng))
    train, names = with_null(screen.adata[~away & ~test], screen.columns, NULL_SHARES, crc32(fold.name.encode()))
    given_cells = screen.adata[given]
    whole = given_cells.obs["perturbation"].astype(str).str.replace("+", ONE_PIECE, regex=False)
    return Split(train, relabelled(given_cells, screen.columns, whole), screen.adata[test].copy(), names)


def predictions(table: pd.DataFrame, split: Split, group: str) -> dict[str, np.ndarray]:
    """What perturbations of a group add to a cell, by the rows of a table of perturbations."""
    labels = split.labels(group, set(table.index))
    if group == "transferred":
        rows = {label: [label.replace("+", ONE_PIECE)] for label in labels}
    elif group == "seen":
        rows = {label: [label] if label in table.index else label.split("+") for label in labels}
    else:
        rows = {label: label.split("+") for label in labels}
    return {label: table.loc[parts].to_numpy(np.float32).sum(0) for label, parts in rows.items()}


def fidelity(effects: Mapping[str, np.ndarray], test: ad.AnnData) -> dict[str, float]:
    """Correlation and rank of predicted effects."""
    if not effects:
        return {}
    chosen = test[test.obs["perturbation"].isin([*effects, CONTROL])]
    zero = np.zeros_like(next(iter(effects.values())))
    found = sv.metrics.ate(
        np.stack([zero, *effects.values()]),
        np.array([CONTROL, *effects]),
        log_counts(chosen.X),
        chosen.obs["perturbation"].astype(str).to_numpy(),
        control=CONTROL,
        scale="log",
    )
    scores = {"all": found.all_genes, "top": found.top_genes, "rank": found.rank}
    return {key: float(value) for key, value in scores.items() if np.isfinite(value)}


def likelihood(weights: Evidence, added: Mapping[str, np.ndarray], test: ad.AnnData, suffix: str) -> dict[str, float]:
    """Bound of the cells of some perturbations, and what their shifts bring."""
    labels = test.obs["perturbation"].astype(str).to_numpy()
    rows = np.flatnonzero(np.isin(labels, list(added)))
    if not len(rows):
        return {}
    shift = np.stack([added[label] for label in labels[rows]])
    chosen, groups = weights.of(rows), labels[rows]
    with_shift, without = (
        sv.metrics.iwelbo(w, groups, min_cells=LEAST_CELLS - 1).mean for w in (chosen.under(shift), chosen.log_weights)
    )
    return {f"bound{suffix}": with_shift, f"gain{suffix}": with_shift - without}


class Run(NamedTuple):
    """How fits are made and scored."""

    options: dict[str, Any]
    n_samples: int
    folder: Path
    """Where latent states are kept."""


def measure(screen: Screen, fold: Fold, method: str, seed: int, run: Run) -> dict[str, Any]:
    """Fit, append, and score."""
    cells, start = split(screen, fold), time.process_time()
    fit(cells.train, screen.columns, method, seed, run.options)
    seconds = time.process_time() - start
    new = transfer(cells.given, cells.train)
    open_shifts, every = shifts(new), shifts(new, every=True)
    weights = evidence(cells.train, cells.test, screen.columns, n_samples=run.n_samples, seed=seed)
    control = Decoded(cells.train, screen.columns, seed)
    base = control.mean_log_counts(np.zeros(every.shape[1], np.float32))
    line: dict[str, Any] = {"seconds": seconds, "null": open_share(cells.train, cells.null)}
    for group in GROUPS:
        dense = predictions(every, cells, group)
        added = dense if method in UNSHIFTED else predictions(open_shifts, cells, group)
        in_prior = {label: 0 * shift for label, shift in added.items()} if method in UNSHIFTED else added
        line[group] = likelihood(weights, in_prior, cells.test, "") | likelihood(weights, dense, cells.test, "_every")
        effects = {label: control.mean_log_counts(shift) - base for label, shift in added.items()}
        line[group] |= fidelity(effects, cells.test) | {"n": len(added)}
    states = latent(cells.train, cells.test, screen.columns)
    return line | {"mcc": agreement(states, run.folder, f"{fold.name}_{method}", seed)}


def agreement(states: np.ndarray, folder: Path, name: str, seed: int) -> list[float]:
    """MCC with the latent states of other seeds; keep these for later ones."""
    path = folder / f"{name}_{seed}.npz"
    others = [np.load(other)["z"] for other in sorted(folder.glob(f"{name}_*.npz")) if other != path]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(path, z=states)
    return [sv.metrics.mcc(states, z).mcc for z in others]


def baseline(screen: Screen, fold: Fold, method: str) -> dict[str, Any]:
    """Mean differences of the same cells, in gene space or through principal components, or the same for all."""
    cells, start = split(screen, fold), time.process_time()
    logs = log_counts(ad.concat([cells.train, cells.given]).X)
    labels = np.concatenate([c.obs["perturbation"].astype(str).to_numpy() for c in (cells.train, cells.given)])
    axes = None
    if method == "principal components":
        n = min(N_COMPONENTS, logs.shape[1] - 1)
        axes = TruncatedSVD(n, random_state=0).fit(logs[: cells.train.n_obs]).components_
    control = mean_of(logs, labels == CONTROL)
    means = {name: mean_of(logs, labels == name) - control for name in np.unique(labels) if name != CONTROL}
    table = pd.DataFrame(means).T.drop(index=cells.null)
    if axes is not None:
        table = pd.DataFrame(table.to_numpy() @ axes.T @ axes, index=table.index)
    if method == "average effect":
        of_fit = table.loc[table.index.isin(cells.train.obs["perturbation"].unique())].mean().to_numpy()
        table = pd.DataFrame(np.tile(of_fit, (len(table), 1)), index=table.index)
    line: dict[str, Any] = {"seconds": time.process_time() - start}
    for group in GROUPS:
        added = predictions(table, cells, group)
        line[group] = fidelity(added, cells.test) | {"n": len(added)}
    return line


def mean_of(logs: Any, rows: np.ndarray) -> np.ndarray:
    """Mean over some cells, (n_genes,)."""
    return np.asarray(logs[rows].mean(0)).ravel()


COLUMNS = {
    "bound": ("bound", 1),
    "gain": ("gain", 2),
    "gain_every": ("all gates open", 2),
    "all": ("r, all genes", 3),
    "top": ("top 20", 3),
    "rank": ("rank", 2),
}
OVERALL = {"null": ("null", 2), "mcc": ("MCC", 2), "seconds": ("CPU s", 0)}


def average(values: list[Any], digits: int) -> str:
    """Mean of numbers and lists of numbers; a dash of nothing."""
    found = [np.mean(value) for value in values if value not in (None, [])]
    return f"{np.mean(found):.{digits}f}" if found else "–"


def table(lines: list[dict]) -> str:
    """Tables for each kind of fold, in Markdown: means over folds and seeds."""
    text = []
    for kind in dict.fromkeys(line["kind"] for line in lines):
        part = [line for line in lines if line["kind"] == kind]
        folds, seeds = ({line[key] for line in part} for key in ("fold", "seed"))
        text.append(f"\n{part[0]['data']}, {kind}: {len(folds)} folds, {len(seeds)} seeds\n")
        methods = {name: [x for x in part if x["method"] == name] for name in dict.fromkeys(x["method"] for x in part)}
        for group in (g for g in GROUPS if any(line[g]["n"] for line in part)):
            text += rows(group, COLUMNS, {name: [line[group] for line in mine] for name, mine in methods.items()})
        text += rows("fit", OVERALL, {name: mine for name, mine in methods.items() if name not in BASELINES})
    return "\n".join(text)


def rows(head: str, columns: Mapping[str, tuple[str, int]], methods: Mapping[str, list[dict]]) -> list[str]:
    """One table."""
    text = [f"| {head} | {' | '.join(name for name, _ in columns.values())} |", "|" + "---|" * (1 + len(columns))]
    for method, lines in methods.items():
        cells = [average([line.get(key) for line in lines], digits) for key, (_, digits) in columns.items()]
        text.append(f"| {method} | {' | '.join(cells)} |")
    return [*text, ""]


def chosen_screen(args: argparse.Namespace) -> Screen:
    """The screen that was asked for."""
    if args.norman:
        return norman(args.norman, n_splits=args.splits, in_batches=not args.no_batch)
    if not args.replogle:
        return stand_in()
    return replogle(args.replogle, args.clusters, genes=args.gene_list, in_batches=not args.no_batch)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--norman", type=Path, help="file of pertpy.data.norman_2019()")
    parser.add_argument("--replogle", type=Path, help="file of pertpy.data.replogle_2022_k562_gwps()")
    parser.add_argument("--clusters", type=Path, help="CSV with the columns perturbation, cluster; for --replogle")
    parser.add_argument("--gene-list", type=Path, help="genes to keep, one a line; for --replogle")
    parser.add_argument("--no-batch", action="store_true", help="do not give the decoder the lanes")
    parser.add_argument("--splits", type=int, default=5, help="of the pairs; for --norman")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *BASELINES], default=[*METHODS, *BASELINES])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args(argv)
    if args.replogle and not args.clusters:
        parser.error("--replogle needs --clusters")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    sc.settings.verbosity = 0
    lines = read_lines(args.out)
    if args.table:
        print(table(lines))
        return
    screen = chosen_screen(args)
    done = {(line["data"], line["fold"], line["method"], line["seed"]) for line in lines}
    run = Run(QUICK if args.quick else {}, args.samples, args.out.with_suffix("") / screen.name)
    for fold in screen.folds:
        for method in args.methods:
            for seed in args.seeds[: 1 if method in BASELINES else None]:
                if (screen.name, fold.name, method, seed) in done:
                    continue
                line = {"data": screen.name, "kind": fold.kind, "fold": fold.name, "method": method, "seed": seed}
                line |= (
                    baseline(screen, fold, method) if method in BASELINES else measure(screen, fold, method, seed, run)
                )
                append_line(args.out, line)
                print(line, flush=True)


if __name__ == "__main__":
    main()
