"""One of several processes that fit a small model together: `python ranks_worker.py SCENARIO FOLDER RANK SIZE`.

Writes the weights, the history and what else there is to compare to FOLDER/RANK.npz.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from distant import distant, set_buffer, size
from torch import distributed

import scanpy_scvi as sv
from scanpy_scvi.modules import ModelSpec, Part, mlp, precision
from scanpy_scvi.modules.fused_block import can_fuse
from scanpy_scvi.modules.likelihoods import NegativeBinomial
from scanpy_scvi.store import ColumnKeys, read
from scanpy_scvi.training import NonFiniteLoss, TrainingConfig, fit, seeded
from scanpy_scvi.training.checkpoint import Checkpoints
from scanpy_scvi.training.ranks import Ranks, connect

SICK = 17
"""A cell whose loss is infinite, for a while."""


class Scenario(NamedTuple):
    """A fit."""

    likelihood: str = "nb"
    norm: str = "batch"
    library: str = "observed"
    n_cells: int = 123
    """Odd, so that no share of it is even."""
    formula: bool = False
    """Whether blocks are computed by torch's operations, as on other devices, rather than by the kernel."""
    config: dict[str, Any] = {}  # noqa: RUF012  # read only
    reduced: bool = False
    """Whether products over all genes are of bfloat16, as on processors that have instructions for it."""
    far: bool = False
    """Whether counts stay in a file, of which a buffer holds a third."""
    sick: str = ""
    """`once`, or `always`."""


SCENARIOS = {
    "nb": Scenario(),
    "nb_again": Scenario(),
    "other_data": Scenario(),
    "goes_on": Scenario(),
    "one_goes_on": Scenario(),
    "zinb": Scenario("zinb"),
    "layer": Scenario(norm="layer"),
    "latent": Scenario(library="latent"),
    "formula": Scenario(formula=True, library="latent"),
    "reduced": Scenario(reduced=True, config={"mixed_precision": True}),
    "stops": Scenario(config={"max_epochs": 200, "early_stopping": True, "patience_steps": 20}),
    "settles": Scenario(config={"settle_dispersion": True}),
    "all_cells": Scenario(config={"validation_size": 0.0}),
    "few": Scenario(n_cells=30, config={"validation_size": 0.05, "batch_size": 9}),
    "far": Scenario(far=True, config={"settle_dispersion": True}),
    "sick_once": Scenario(sick="once"),
    "sick": Scenario(sick="always", config={"max_restarts": 1}),
}
PLAIN = {"max_epochs": 6, "batch_size": 32, "early_stopping": False, "settle_dispersion": False}
PLAIN |= {"mixed_precision": False}


def spec_of(scenario: Scenario, data: Any) -> ModelSpec:
    network = {"n_hidden": 16, "n_layers": 2, "norm": scenario.norm}
    latent = Part("latent", {"prior_mean": [4.0, 4.0], "prior_var": [1.0, 1.0], **network, "dropout_rate": 0.1})
    return ModelSpec(
        dims=data.dims,
        encoder=Part("mlp", network | {"n_latent": 3, "dropout_rate": 0.2, "encode_covariates": True}),
        library=latent if scenario.library == "latent" else Part("observed"),
        decoder=Part("mlp", network | {"n_latent": 3, "output_covariates": True}),
        likelihood=Part(scenario.likelihood),
        prior=Part("normal"),
    )


def make_sick(scenario: Scenario) -> None:
    """Make the likelihood of one cell infinite, in the process that has it: always, or in steps of the third epoch."""
    nll, calls = NegativeBinomial.nll, []

    def broken(self, output, log_library, cells):
        calls.append(None)
        is_ill = scenario.sick == "always" or 10 <= len(calls) <= 14  # 4 steps and an evaluation an epoch
        return nll(self, output, log_library, cells) + torch.where((cells.index == SICK) & is_ill, torch.inf, 0.0)

    NegativeBinomial.nll = broken


def outcome(name: str, ranks: Ranks, states: Path | None = None) -> dict[str, np.ndarray]:
    """Fit, from the states in a folder where there are such, and return what there is to compare."""
    scenario, nll = SCENARIOS[name], NegativeBinomial.nll
    seed = ranks.rank if name == "other_data" else 0
    adata = sv.datasets.simulate(n_cells=scenario.n_cells, n_genes=100, density=0.3, random_state=seed)
    data = read(adata, ColumnKeys(batch_key="batch"), layer=None, mask_var=None)
    cells = distant(data.table) if scenario.far else data.table
    config = TrainingConfig(**PLAIN | scenario.config)
    if scenario.sick:
        make_sick(scenario)
    precision.bfloat16_pays = lambda: scenario.reduced
    if scenario.formula:
        mlp.can_fuse = lambda *_: False
    try:
        with seeded(0), pytest.MonkeyPatch.context() as patch:
            if scenario.far:
                set_buffer(patch, size(data.table) // 3)
            model = spec_of(scenario, data).build()
            checkpoints = None if states is None else Checkpoints(states, {}, writes=not ranks.rank)
            result = fit(model, cells, config, ranks=ranks, checkpoints=checkpoints)
    except NonFiniteLoss as error:
        return {"culprit": np.array(str(error))}
    except ValueError as error:
        return {"said": np.array(str(error))}
    finally:
        NegativeBinomial.nll, mlp.can_fuse = nll, can_fuse
    weights = {f"weight {key}": value.numpy() for key, value in model.state_dict().items()}
    verdict = result.convergence
    numbers = {"n_restarts": np.array(verdict.n_restarts), "elbo": np.array(verdict.best_elbo)}
    return weights | {"history": np.array(result.history), "message": np.array(verdict.message)} | numbers


def apart(ranks: Ranks) -> dict[str, np.ndarray]:
    """What is said where processes hold different numbers."""
    try:
        ranks.check_equal([torch.zeros(3), torch.tensor([float(ranks.rank == ranks.size - 1)])])
    except RuntimeError as error:
        return {"said": np.array(str(error))}
    return {"said": np.array("nothing")}


def thread_classes() -> dict[str, np.ndarray]:
    """How Linux schedules the threads of this process: the calling one, and all."""
    threads = [int(name) for name in os.listdir("/proc/self/task")]
    policies = np.array([os.sched_getscheduler(thread) for thread in threads])
    return {"own": np.array(os.sched_getscheduler(0)), "all": policies}


def main(names: str, folder: Path, rank: int, size: int) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    connect("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    ranks = Ranks(size, rank)
    try:
        for name in names.split(","):
            states = {"goes_on": folder / "states", "one_goes_on": folder / f"states-{rank}"}.get(name)
            if name == "apart":
                found = apart(ranks)
            else:
                found = thread_classes() if name == "threads" else outcome(name, ranks, states)
            np.savez(folder / f"{name}-{rank}.npz", **found)
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
