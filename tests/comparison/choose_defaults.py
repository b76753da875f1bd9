"""How the defaults were chosen: one option changed at a time, on data that no other table reports.

    SCANPY_SCVI_DATA=... python tests/comparison/choose_defaults.py --out defaults.jsonl
    python tests/comparison/choose_defaults.py --out defaults.jsonl --table

Cells held out from the fit (10 %) give the bound; embeddings are scored on all cells.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from quality_data import TASKS, held_out, load
from quality_table import score
from result_lines import append_line, read_lines

from scanpy_scvi.modules.mlp import MLP
from scanpy_scvi.posterior import held_out_bound, latent_moments
from scanpy_scvi.store.covariates import ColumnKeys
from scanpy_scvi.store.read import read, read_like
from scanpy_scvi.tl._assemble import Architecture, library_part, model_spec
from scanpy_scvi.training import TrainingConfig, fit, seeded
from scanpy_scvi.training.config import default_max_epochs

DATA = ("worm_embryo", "paul15", "mouse_bladder")
DEFAULT = Architecture(
    likelihood="nb",
    dispersion="gene",
    library="observed",
    n_latent=20,
    n_hidden=128,
    n_layers=2,
    dropout_rate=0.1,
    norm="batch",
    inject_covariates=True,
    encode_covariates=True,
)
VARIANTS: dict[str, dict] = {
    "default": {},
    "zinb": {"likelihood": "zinb"},
    "poisson": {"likelihood": "poisson"},
    "gene-cell dispersion": {"dispersion": "gene-cell"},
    "latent library": {"library": "latent"},
    "n_latent 10": {"n_latent": 10},
    "n_latent 30": {"n_latent": 30},
    "n_hidden 64": {"n_hidden": 64},
    "n_hidden 256": {"n_hidden": 256},
    "n_layers 1": {"n_layers": 1},
    "n_layers 1, n_latent 10": {"n_layers": 1, "n_latent": 10},
    "no dropout": {"dropout_rate": 0.0},
    "dropout 0.1 in the decoder too": {"decoder_dropout": 0.1},
    "layer norm": {"norm": "layer"},
    "no norm": {"norm": "none"},
    "norm momentum 0.01": {"norm_momentum": 0.01},
    "no covariates in the encoder": {"encode_covariates": False},
    "no covariates in the output layer": {"output_covariates": False},
    "learning rate 0.005": {"learning_rate": 5e-3},
    "learning rate 0.02": {"learning_rate": 2e-2},
    "learning rate 0.001": {"learning_rate": 1e-3},
    "adam eps 1e-3": {"adam_eps": 1e-3},
    "adam eps 1e-4": {"adam_eps": 1e-4},
    "adam eps 3e-2": {"adam_eps": 3e-2},
    "batch size 64": {"batch_size": 64},
    "batch size 256": {"batch_size": 256},
    "no averaging": {"averaging": 0.0},
    "averaging 0.05": {"averaging": 0.05},
    "averaging 0.2": {"averaging": 0.2},
    "weight decay 1e-3": {"weight_decay": 1e-3},
    "KL warm-up over 0.1": {"kl_warmup": 0.1},
    "start from noise": {"start_from_data": False},
    "patience 50 steps": {"patience_steps": 50},
    "patience 200 steps": {"patience_steps": 200},
}


def run(variant: str, data: str, seed: int) -> dict:
    """Fit one variant and score it."""
    options = dict(VARIANTS[variant])
    decoder_dropout = options.pop("decoder_dropout", 0.0)
    task = TASKS[data]
    adata = load(task)
    test = held_out(adata.n_obs, seed)
    columns, device = ColumnKeys(batch_key=task.batch_key), torch.device("cpu")
    train = read(adata[~test], columns, layer=None, mask_var=None)
    names = {f.name for f in fields(Architecture)}
    architecture = replace(DEFAULT, **{k: v for k, v in options.items() if k in names})
    config = TrainingConfig(
        max_epochs=default_max_epochs(train.table.n_cells),
        random_state=seed,
        **{k: v for k, v in options.items() if k not in names},
    )
    start = time.process_time()
    with seeded(seed):
        spec = model_spec(architecture, train.dims, library_part(architecture, train.table, size_factors=False))
        model = spec.build()
        for mlp in model.decoder.modules():
            if isinstance(mlp, MLP):
                for block in mlp.blocks:
                    block.dropout.p = decoder_dropout
        result = fit(model, train.table, config)
    seconds = time.process_time() - start

    genes = np.arange(adata.n_vars)
    held = read_like(adata[test], columns, train.categories, genes, None)
    every = read_like(adata, columns, train.categories, genes, None)
    bound = held_out_bound(model, held, n_samples=20, random_state=seed, device=device)
    return {
        "variant": variant,
        "data": data,
        "seed": seed,
        "bound": -float(bound.elbo.mean()),
        "weighted": -float(bound.log_likelihood.mean()),
        "cpu_seconds": seconds,
        "epochs": len(result.history),
        **score(task, adata, latent_moments(model, every, device=device).mean),
    }


def table(lines: list[dict]) -> str:
    """Markdown: bound against the default's in per cent, label score, CPU seconds, means over seeds."""

    def mean(variant: str, data: str, key: str) -> float:
        values = [line[key] for line in lines if line["variant"] == variant and line["data"] == data]
        return float(np.mean(values)) if values else float("nan")

    head = ["option", *(f"{d}: −ELBO, change, label, CPU s" for d in DATA), "mean change"]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for variant in dict.fromkeys(line["variant"] for line in lines):
        changes = [100 * (mean(variant, d, "bound") / mean("default", d, "bound") - 1) for d in DATA]
        cells = [
            f"{mean(variant, d, 'bound'):.1f}, {change:+.2f} %, {mean(variant, d, 'label'):.3f}, "
            f"{mean(variant, d, 'cpu_seconds'):.1f}"
            for d, change in zip(DATA, changes, strict=True)
        ]
        rows.append("| " + " | ".join([variant, *cells, f"{np.mean(changes):+.2f} %"]) + " |")
    return "\n".join(rows)


def main() -> None:
    """Run what is missing from the output file, or print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    lines = read_lines(args.out)
    if args.table:
        print(table(lines))
        return
    torch.set_num_threads(1)
    done = {(line["variant"], line["data"], line["seed"]) for line in lines}
    for variant in args.variants:
        for seed in args.seeds:
            for data in DATA:
                if (variant, data, seed) not in done:
                    append_line(args.out, run(variant, data, seed))


if __name__ == "__main__":
    main()
