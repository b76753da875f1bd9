"""Systems of the response table: what each says the held-out cells express."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from response_data import CONDITION, CONTROL, STIMULATED, TYPE, Task, log_normalized

import scanpy_scvi as sv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import anndata as ad

N_COMPONENTS = 100


class Answer(NamedTuple):
    """What a system predicts, on the scale of log-normalised counts."""

    system: str
    values: np.ndarray
    """Cells, or one row with their mean, by genes."""
    seconds: float
    """CPU seconds of fit and prediction."""
    inside: float = np.nan
    """Share of genes whose real mean lies in the 95% interval."""


class Run(NamedTuple):
    """What a run may use beside its task."""

    seed: int
    options: dict
    """Of every fit of ours."""
    peer: tuple[str, Path] | None
    """Python with scvi-tools, and a copy of theislab/scgen."""


def nothing(task: Task, run: Run) -> Iterator[Answer]:
    """Control cells as they are."""
    yield Answer("no effect", task.logs()[task.under(CONTROL)], 0.0)


def within(task: Task, values: np.ndarray) -> np.ndarray:
    """Mean over the other types of the differences within them."""
    others = [name for name in task.train.obs[TYPE].unique() if name != task.held_out]
    return np.mean(
        [values[task.under(STIMULATED, n)].mean(0) - values[task.under(CONTROL, n)].mean(0) for n in others], axis=0
    )


def between(task: Task, values: np.ndarray) -> np.ndarray:
    """What scGen's resampling has on average: all types' stimulated means less all types' control means.

    The held-out type has a part in the second alone.
    """
    names = task.train.obs[TYPE].unique()
    sides = [[task.under(c, n) for n in names] for c in (STIMULATED, CONTROL)]
    stimulated, control = (np.mean([values[m].mean(0) for m in side if m.any()], axis=0) for side in sides)
    return stimulated - control


def gene_space(task: Task, run: Run) -> Iterator[Answer]:
    """The shift of the genes themselves."""
    logs = task.logs()
    for shift, name in ((within, "gene-space shift"), (between, "gene-space shift, as published")):
        start = time.process_time()
        mean = logs[task.under(CONTROL)].mean(0) + shift(task, logs)
        yield Answer(name, mean[None], time.process_time() - start)


def pca(task: Task, run: Run) -> Iterator[Answer]:
    """The shift of principal components, and back."""
    start = time.process_time()
    logs = task.logs()
    centre = logs.mean(0)
    axes = np.linalg.svd(logs - centre, full_matrices=False)[2][:N_COMPONENTS]
    scores = (logs - centre) @ axes.T
    mean = centre + (scores[task.under(CONTROL)].mean(0) + within(task, scores)) @ axes
    yield Answer(f"PCA({N_COMPONENTS}) + shift", mean[None], time.process_time() - start)


def ask(task: Task, key: str, seed: int, **options) -> ad.AnnData:
    """`tl.predict_perturbation` for the held-out type."""
    fixed = {"source": CONTROL, "target": STIMULATED, "cell_type_key": TYPE, "cell_types": task.held_out}
    return sv.tl.predict_perturbation(task.train, CONDITION, key=key, random_state=seed, **fixed, **options)


def inside(predicted: ad.AnnData, key: str, real: np.ndarray) -> float:
    """Share of genes whose real mean lies in the interval."""
    table = predicted.uns[f"{key}_prediction"]["genes"]
    return float(((table["low"] <= real) & (real <= table["high"])).mean())


def scgen(task: Task, run: Run) -> Iterator[Answer]:
    """`tl.scgen`, with differences within types and with scGen's own resampling."""
    start = time.process_time()
    sv.tl.scgen(
        task.train, target_sum=task.total, random_state=run.seed, normalized=False, progress=False, **run.options
    )
    fit = time.process_time() - start
    for balance, name in (("within", "`tl.scgen`"), ("resample", '`tl.scgen`, `balance="resample"`')):
        start = time.process_time()
        new = ask(task, "scgen", run.seed, balance=balance)
        yield Answer(name, new.X, fit + time.process_time() - start, inside(new, "scgen", task.real.mean(0)))


def scvi(task: Task, run: Run, **options) -> Iterator[Answer]:
    """`tl.scvi`, which is not given the condition, or which is given it as its batch.

    Its answer are means of counts. Log-normalised counts have a mean of their own, so counts are drawn: for each cell
    and gene from the fit's negative binomial at the cell's own depth.
    """
    start = time.process_time()
    options = run.options | options
    sv.tl.scvi(task.train, random_state=run.seed, normalized=False, progress=False, **options)
    new = ask(task, "scvi", run.seed)
    seconds = time.process_time() - start
    depth = np.asarray(task.train.X[task.under(CONTROL)].sum(1))
    theta = task.train.var["scvi_dispersion"].to_numpy(float)
    mu = new.X.astype(float) / 1e4 * depth
    drawn = log_normalized(np.random.default_rng(run.seed).negative_binomial(theta, theta / (theta + mu)), task.total)
    if "batch_key" in options:
        yield Answer("`tl.scvi`, condition as batch", drawn, seconds)
        return
    shares = np.expm1(task.real) / np.expm1(task.real).sum(1, keepdims=True)
    name = "`tl.scvi`, `kl_weight=0.1`, + shift" if "kl_weight" in options else "`tl.scvi` + shift"
    yield Answer(name, drawn, seconds, inside(new, "scvi", 1e4 * shares.mean(0)))


def scvi_batch(task: Task, run: Run) -> Iterator[Answer]:
    """`tl.scvi` with the condition as its batch, which is exchanged."""
    yield from scvi(task, run, batch_key=CONDITION)


def scvi_loose(task: Task, run: Run) -> Iterator[Answer]:
    """`tl.scvi` with more room and less of a prior: chosen on other cells, by `response_weights.py`."""
    yield from scvi(task, run, n_latent=30, kl_weight=0.1)


def original(task: Task, run: Run, *, stop: bool = True) -> Iterator[Answer]:
    """scGen's own code, where there is a copy of it."""
    if run.peer is None:
        return
    python, repository = run.peer
    with tempfile.TemporaryDirectory() as folder:
        train = task.train.copy()
        train.X, train.uns = task.logs(), {}
        train.write_h5ad(Path(folder, "train.h5ad"))
        program = [python, Path(__file__).parent / "response_peer.py", repository, folder, task.held_out]
        subprocess.run([*program, str(run.seed), str(int(stop))], check=True, stdout=subprocess.DEVNULL)
        with np.load(Path(folder, "answer.npz")) as answer:
            name = "scGen, its own code" if stop else "scGen, its own code, 100 epochs"
            yield Answer(name, answer["values"], float(answer["seconds"]))


def original_whole(task: Task, run: Run) -> Iterator[Answer]:
    """The same without early stopping."""
    yield from original(task, run, stop=False)


SYSTEMS: dict[str, Callable[[Task, Run], Iterator[Answer]]] = {
    "nothing": nothing,
    "gene_space": gene_space,
    "pca": pca,
    "scgen": scgen,
    "scvi": scvi,
    "scvi_loose": scvi_loose,
    "scvi_batch": scvi_batch,
    "original": original,
    "original_whole": original_whole,
}
RANDOM = ("scgen", "scvi", "scvi_loose", "scvi_batch", "original", "original_whole")
NAMES = [
    "no effect",
    "gene-space shift",
    "gene-space shift, as published",
    "PCA(100) + shift",
    "scGen, its own code",
    "scGen, its own code, 100 epochs",
    '`tl.scgen`, `balance="resample"`',
    "`tl.scgen`",
    "`tl.scvi` + shift",
    "`tl.scvi`, `kl_weight=0.1`, + shift",
    "`tl.scvi`, condition as batch",
]
"""In the order of the table."""
