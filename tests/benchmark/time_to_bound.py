"""CPU seconds until a fit first reaches scvi-tools' best held-out bound: learning curves of both sides.

    OMP_NUM_THREADS=1 SCANPY_SCVI_DATA=... python tests/benchmark/time_to_bound.py --out curves.jsonl \
        --systems peer-default-nb peer-our-rate ours --seeds 0 1 2 3 4
    python tests/benchmark/time_to_bound.py --out curves.jsonl --table

Data, genes and cells held out are those of `tests/comparison/quality_data.py`; the likelihood is NB on both sides. The
clock counts CPU seconds from the call (`SCVI.setup_anndata`, or `tl.scvi`), with everything that either does of its
own accord, and stands still while this script evaluates the cells held out: -ELBO at KL weight 1 with the KL in closed
form, mean of `N_DRAWS` draws of z with one fixed seed, in evaluation mode, under the weights that the fit would return
(ours: the averaged ones). Evaluations leave the random state of the fit alone. Before a system's first fit to a data
set, a fit of one epoch loads what is loaded once.

One JSON line for each (data, system, seed); those that are there are skipped. `gemm_ms` holds the time of one matrix
product before and after each fit, which tells how busy the machine was.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from _common import Clock, append_line, gemm_ms, read_lines
from quality_data import TASKS, held_out, load

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad

DATA = ("cellmix_5batch", "kang_pbmc_ifnb", "hspc_4libraries")
PEERS = ("peer-default-nb", "peer-our-rate")
EVERY = {"peer-default-nb": 5}
"""Epochs between evaluations, where not 1."""
N_DRAWS = 5
CHUNK = 512


class Curve(NamedTuple):
    """One fit."""

    points: list[tuple[int, float, float]]
    """Epoch, CPU seconds so far, -ELBO of the cells held out."""
    cpu_seconds: float
    """Of the whole call, posterior means of the latent included."""
    epochs: int


@torch.no_grad()
def negative_elbo(module: torch.nn.Module, loss: Callable[[object], torch.Tensor], chunks: list) -> float:
    """Mean over cells and draws of `loss(chunk)`, (n,), in evaluation mode."""
    training = module.training
    module.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        losses = [torch.cat([loss(chunk) for chunk in chunks]).double().mean().item() for _ in range(N_DRAWS)]
    module.train(training)
    return float(np.mean(losses))


def peer_curve(
    system: str, train: ad.AnnData, test: ad.AnnData, batch_key: str, seed: int, epochs: int | None
) -> Curve:
    """Fit scvi-tools in a configuration of `tests/comparison/quality_peer.py`."""
    import scvi
    from lightning.pytorch import Callback
    from quality_peer import CONFIGURATIONS

    model_options, train_options = CONFIGURATIONS[system]
    every, points = EVERY.get(system, 1), []
    scvi.settings.seed = seed
    clock = Clock()
    scvi.model.SCVI.setup_anndata(train, batch_key=batch_key)
    model = scvi.model.SCVI(train, **model_options)
    with clock.paused():
        chunks = list(model._make_data_loader(adata=model._validate_anndata(test), batch_size=CHUNK))

    def loss(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        terms = model.module(tensors, loss_kwargs={"kl_weight": 1.0})[2]
        return sum((*terms.reconstruction_loss.values(), *terms.kl_local.values()))

    class Watch(Callback):
        def on_train_epoch_end(self, trainer: object, _: object) -> None:
            epoch = trainer.current_epoch + 1
            if epoch % every == 0:
                seconds = clock.cpu
                with clock.paused():
                    points.append((epoch, seconds, negative_elbo(model.module, loss, chunks)))
            self.epochs = epoch

    watch = Watch()
    model.train(epochs, accelerator="cpu", enable_progress_bar=False, callbacks=[watch], **train_options)
    model.get_latent_representation()
    return Curve(points, clock.cpu, watch.epochs)


def our_curve(_: str, train: ad.AnnData, test: ad.AnnData, batch_key: str, seed: int, epochs: int | None) -> Curve:
    """Fit `tl.scvi` with all defaults, watching its training loop."""
    import scanpy_scvi as sv
    from scanpy_scvi.store.covariates import ColumnKeys
    from scanpy_scvi.store.read import read, read_like
    from scanpy_scvi.tl import _fit as caller
    from scanpy_scvi.training import fit as public_fit
    from scanpy_scvi.training.fit import _Fit

    columns = ColumnKeys(batch_key=batch_key)
    table = read_like(
        test, columns, read(train, columns, layer=None, mask_var=None).categories, np.arange(train.n_vars), None
    )
    chunks = [table.take(rows) for rows in np.array_split(np.arange(table.n_cells), -(-table.n_cells // CHUNK))]
    points = []

    def watched_fit(model, data, config, *, device, on_epoch, on_interrupt):
        def watch(record):
            seconds = clock.cpu
            with clock.paused(), run.average.swapped_in():
                points.append((record.epoch, seconds, negative_elbo(model, lambda cells: model(cells).loss(), chunks)))
            on_epoch(record)

        run = _Fit(model, data, config, device, watch)
        return run.run(on_interrupt)

    caller.fit = watched_fit
    try:
        clock = Clock()
        sv.tl.scvi(train, batch_key, random_state=seed, normalized=False, progress=False, max_epochs=epochs)
        return Curve(points, clock.cpu, len(train.uns["scvi"]["history"]["epoch"]))
    finally:
        caller.fit = public_fit


def run(system: str, data: str, seed: int, epochs: int | None = None) -> dict:
    """Fit one system to one data set; return its line."""
    task = TASKS[data]
    adata = load(task)
    test = held_out(adata.n_obs, seed)
    side = our_curve if system == "ours" else peer_curve
    before = gemm_ms()
    curve = side(system, adata[~test].copy(), adata[test].copy(), task.batch_key, seed, epochs)
    return {"data": data, "system": system, "seed": seed, "gemm_ms": [before, gemm_ms()], **curve._asdict()}


class Race(NamedTuple):
    """Ours against one fit of the peer."""

    bound: float
    """The peer's best over its epochs, -ELBO."""
    epoch: int
    seconds: float
    ours: float
    """Our CPU seconds until a bound as good; infinite where there is none."""


def race(peer: dict, ours: dict) -> Race:
    """Compare the times to the peer's best bound."""
    epoch, seconds, bound = min(peer["points"], key=lambda point: point[2])
    return Race(bound, epoch, seconds, min((s for _, s, b in ours["points"] if b <= bound), default=np.inf))


def markdown(lines: list[dict]) -> str:
    """Medians over seeds, and the range of the ratio; then the peer's seconds for seeds that we have not run."""
    at = {(line["data"], line["system"], line["seed"]): line for line in lines}
    head = ("data", "peer", "seeds", "its best bound", "at epoch", "CPU s to it", "ours, CPU s to it", "ratio (range)")
    rows = ["| " + " | ".join([*head, "our best", "our CPU s"]) + " |", "|" + "---|" * (len(head) + 2)]
    for peer in PEERS:
        medians = []
        for data in DATA:
            seeds = [s for d, system, s in at if d == data and system == peer and (data, "ours", s) in at]
            if not seeds:
                continue
            races = [race(at[data, peer, s], at[data, "ours", s]) for s in seeds]
            ratios = [r.seconds / r.ours for r in races]
            bound, epoch, seconds, ours = np.median(np.array(races), axis=0)
            best = np.median([min(p[2] for p in at[data, "ours", s]["points"]) for s in seeds])
            total = np.median([at[data, "ours", s]["cpu_seconds"] for s in seeds])
            medians.append(np.median(ratios))
            rows.append(
                f"| `{data}` | {peer} | {len(seeds)} | {bound:.1f} | {epoch:.0f} | {seconds:.1f} | {ours:.2f} | "
                f"**{medians[-1]:.0f}×** ({min(ratios):.0f}–{max(ratios):.0f}) | {best:.1f} | {total:.1f} |"
            )
        if medians:
            mean = np.exp(np.mean(np.log(medians)))
            rows.append(f"| geometric mean | {peer} | | | | | | **{mean:.0f}×** | | |")
    return "\n".join(rows)


def main() -> None:
    """Run what is missing from the output file, or print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=DATA)
    parser.add_argument("--systems", nargs="+", default=["ours"])
    parser.add_argument("--seeds", nargs="+", type=int, default=range(5))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(markdown(read_lines(args.out)))
        return
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")  # the peer's advice on workers and devices
    done = {(line["data"], line["system"], line["seed"]) for line in read_lines(args.out)}
    warm = set()
    for seed in args.seeds:
        for data in args.data:
            for system in args.systems:
                if (data, system, seed) in done:
                    continue
                if (system, data) not in warm:  # kernels depend on the density too
                    run(system, data, seed, epochs=1)
                    warm.add((system, data))
                append_line(args.out, run(system, data, seed))


if __name__ == "__main__":
    main()
