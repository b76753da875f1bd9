"""Denoising by molecular cross-validation: the table "Denoising" of the benchmarks page.

    SCANPY_SCVI_DATA=... python tests/comparison/denoising.py pbmc3k hspc_4libraries --magic PYTHON
    python tests/comparison/denoising.py --table denoising.jsonl

Nine tenths of the molecules of each cell are shown to a method, which is judged by the others (Batson et al. 2019,
bioRxiv 786269), in the form of Open Problems' task: mean squared error of log1p of counts per 10,000, and a Poisson
loss of the counts. Open Problems hands the two arguments of that loss over in the order (held out, denoised), which
makes it linear in what is predicted, and best where nothing is; `poisson` is that number, and `poisson_proper` the loss
of the prediction, mean(m - x log(m + 1e-6)). PYTHON is that of an environment with `magic-impute`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import torch
from result_lines import append_line, read_lines
from scipy import sparse

import scanpy_scvi as sv
from scanpy_scvi.store import load

SHARE = 0.9
TINY = 1e-6
N_CORRELATED = 300
STRONG = 0.5
HERE = Path(__file__).parent


def read(name: str) -> ad.AnnData:
    """Counts of a data set."""
    return ad.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / f"{name}.h5ad")


def split(adata: ad.AnnData, seed: int) -> tuple[ad.AnnData, np.ndarray]:
    """What is shown, and what is held out; without genes of which nothing is shown."""
    rng = np.random.default_rng(seed)
    x = sparse.csr_matrix(adata.X).astype(np.int64)
    shown = x.copy()
    shown.data = rng.binomial(x.data, SHARE)
    held_out = x - shown
    shown.eliminate_zeros()
    seen = np.asarray(shown.sum(0)).ravel() > 0
    cells = np.asarray(shown.sum(1)).ravel() > 0
    train = ad.AnnData(shown[cells][:, seen].astype(np.float32), adata.obs[cells], adata.var[seen])
    return train, held_out[cells][:, seen].toarray().astype(np.float64)


def per_10k(x: np.ndarray) -> np.ndarray:
    """log1p of counts per 10,000."""
    return np.log1p(1e4 * x / np.maximum(x.sum(1, keepdims=True), 1e-12))


def losses(denoised: np.ndarray, train: np.ndarray, test: np.ndarray) -> dict:
    """The two losses, and the Poisson one with its arguments in their order."""
    denoised = denoised.astype(np.float64)
    m = denoised * (test.sum() / train.sum())
    return {
        "mse": float(np.mean((per_10k(test) - per_10k(denoised)) ** 2)),
        "poisson": float(np.mean(test - m * np.log(test + TINY))),
        "poisson_proper": float(np.mean(m - test * np.log(m + TINY))),
    }


def strong_pairs(x: np.ndarray, genes: np.ndarray) -> float:
    """Share of pairs of genes whose log-normalised values have a correlation above `STRONG`, either way."""
    y = per_10k(x)[:, genes]
    r = np.corrcoef(y[:, y.std(0) > 0].T)
    return float(np.mean(np.abs(r[np.triu_indices(len(r), 1)]) > STRONG))


def ours(function: str, **options):
    """A fit of `sv.tl.<function>`: expected counts, each cell in its own batch, and squares of expected roots."""

    def run(train: ad.AnnData, seed: int) -> dict[str, np.ndarray]:
        adata = train.copy()
        fit = getattr(sv.tl, function)
        fit(adata, normalized=False, key_added="fit", random_state=seed, progress=False, **options)
        asked = {"library_size": "latent", "transform_batch": "observed", "inplace": False}
        counted = load(adata, "fit").model.likelihood.log_normalized_to is None
        rows = {function: "mean", f"{function}, roots": "root"} if counted else {function: "mean"}
        found = {
            row: sv.tl.normalized_expression(adata, key="fit", statistic=statistic, **asked).to_numpy()
            for row, statistic in rows.items()
        }
        if counted:
            roots = found[f"{function}, roots"]
            found[f"{function}, roots, shares"] = roots / roots.sum(1, keepdims=True)
        return found

    return run


SYSTEMS = {name: ours(name) for name in ("scvi", "dca", "dgd", "autoencoder", "autoimpute", "scscope")}


def magic(python: str, train: ad.AnnData) -> np.ndarray:
    """Both ways of MAGIC, (2, cells, genes)."""
    with tempfile.TemporaryDirectory() as folder:
        counts, out = Path(folder, "counts.npz"), Path(folder, "denoised.npy")
        sparse.save_npz(counts, sparse.csr_matrix(train.X))
        subprocess.run([python, HERE / "denoising_magic.py", counts, out], check=True)
        return np.load(out)


def denoised_by(system: str, train: ad.AnnData, seed: int, python: str | None) -> dict[str, np.ndarray]:
    """What a system makes of the counts, under the names of its rows."""
    if system == "none":
        x = train.X.toarray()
        return {"no denoising": x, "a 1,000th of the counts": x / 1000}
    if system == "magic":
        return dict(zip(("MAGIC", "MAGIC, reversed"), magic(python, train), strict=True))
    return SYSTEMS[system](train, seed)


def shuffled(train: ad.AnnData, seed: int) -> ad.AnnData:
    """Counts with the cells of every gene in an order of their own: no gene has to do with another."""
    rng = np.random.default_rng(seed)
    x = train.X.tocsc().copy()
    for g in range(x.shape[1]):
        part = slice(x.indptr[g], x.indptr[g + 1])
        x.indices[part] = np.sort(rng.choice(x.shape[0], part.stop - part.start, replace=False))
    x = sparse.csr_matrix(x)
    return ad.AnnData(x, train.obs, train.var)[np.asarray(x.sum(1)).ravel() > 0].copy()


def measure(name: str, system: str, seed: int, python: str | None) -> list[dict]:
    """Lines of the table for one system on one split."""
    train, test = split(read(name), seed)
    x = train.X.toarray()
    genes = np.argsort(-x.mean(0), kind="stable")[:N_CORRELATED]
    null = shuffled(train, seed)
    start = time.process_time()
    found = denoised_by(system, train, seed, python)
    seconds = time.process_time() - start
    of_null = denoised_by(system, null, seed, python)
    return [
        {"data": name, "system": row, "seed": seed, "cpu": seconds / len(found)}
        | losses(values, x, test)
        | {"strong": strong_pairs(values, genes), "strong_null": strong_pairs(of_null[row], genes)}
        for row, values in found.items()
    ]


def as_table(lines: list[dict]) -> str:
    """Means over the seeds, and ratios to no denoising."""
    head = ("data", "system", "seeds", "MSE", "Poisson", "ratio MSE", "ratio Poisson", "proper Poisson", "pairs, %")
    rows = ["| " + " | ".join([*head, "pairs if none, %"]) + " |", "|" + "---|" * 10]

    def mean(data: str, system: str, key: str) -> float:
        return float(np.mean([x[key] for x in lines if (x["data"], x["system"]) == (data, system)]))

    for data, system in dict.fromkeys((x["data"], x["system"]) for x in lines):
        mse, poisson = mean(data, system, "mse"), mean(data, system, "poisson")
        ratios = mse / mean(data, "no denoising", "mse"), poisson / mean(data, "no denoising", "poisson")
        seeds = sum((x["data"], x["system"]) == (data, system) for x in lines)
        strong = [100 * mean(data, system, key) for key in ("strong", "strong_null")]
        numbers = [f"{mse:.4f}", f"{poisson:.4f}", *(f"{r:.2f}" for r in ratios)]
        numbers += [f"{mean(data, system, 'poisson_proper'):.4f}", *(f"{s:.2f}" for s in strong)]
        rows.append("| " + " | ".join([f"`{data}`", system, str(seeds), *numbers]) + " |")
    return "\n".join(rows)


def main() -> None:
    """Run what is not in the file yet, or print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*")
    parser.add_argument("--systems", nargs="+", default=["none", "magic", *SYSTEMS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--magic", help="Python with magic-impute")
    parser.add_argument("--out", type=Path, default=Path("denoising.jsonl"))
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table:
        print(as_table([json.loads(line) for line in options.table.read_text().splitlines()]))
        return
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    done = {(x["data"], x["run"], x["seed"]) for x in read_lines(options.out)}
    for name in options.data:
        for seed in options.seeds:
            for system in options.systems:
                if (name, system, seed) in done or (system == "magic" and not options.magic):
                    continue
                for line in measure(name, system, seed, options.magic):
                    print({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}, flush=True)
                    append_line(options.out, line | {"run": system})


if __name__ == "__main__":
    main()
