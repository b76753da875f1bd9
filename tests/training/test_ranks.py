"""A fit shared among processes is the fit of one: the same weights but for the rounding of sums, the same decisions.

The processes are real ones, joined by gloo; a group of them fits all scenarios of `ranks_worker`, one after another.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import ranks_worker
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed

from scanpy_scvi.modules import ModelSpec, Part
from scanpy_scvi.training import EpochRecord, checkpoint, fit
from scanpy_scvi.training.fit import _Fit
from scanpy_scvi.training.ranks import LostProcessError, Ranks, _patient_threads
from scanpy_scvi.training.together import said_by_first

if TYPE_CHECKING:
    from collections.abc import Callable

WORKER = Path(ranks_worker.__file__)
FITS = [
    "nb",
    "zinb",
    "latent",
    "layer",
    "formula",
    "reduced",
    "stops",
    "settles",
    "all_cells",
    "few",
    "far",
    "sick_once",
]
SECONDS = 300
"""After which a group of processes hangs; they take a few on a machine that is not busy."""


class Tolerance(NamedTuple):
    """Largest differences after 24 steps."""

    weights: float
    """In units of the largest weight of a tensor."""
    bounds: float
    """Relative, of the bounds of all epochs."""


USUAL = Tolerance(1e-5, 1e-6)
"""Processes add up sums of their own, so sums are rounded elsewhere: 1e-7 a step in float32, which training makes 1e-6
of; the bounds differ by 1e-7."""
ROUNDING = {"formula": Tolerance(2e-4, 2e-6), "reduced": Tolerance(1e-1, 1e-3)}
"""With torch's own operations, biases before batch normalisation, which do nothing, drift by the noise in their
gradient. With products of bfloat16, gradients are rounded to 3 digits before they are added up."""

Outcomes = dict[str, list[dict[str, np.ndarray]]]


def run_processes(names: list[str], size: int, folder: Path) -> Outcomes:
    """Fit scenarios by `size` processes; the outcomes in every one of them."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), ",".join(names), str(folder), str(rank), str(size)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        said = [process.communicate(timeout=SECONDS)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * size, "\n".join(said)
    return {name: [dict(np.load(folder / f"{name}-{rank}.npz")) for rank in range(size)] for name in names}


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return run_processes([*FITS, "sick", "nb_again", "apart"], 2, tmp_path_factory.mktemp("two"))


def leave_state(folder: Path, *, step: int) -> None:
    """Fit by one process, and stop before a step, counted from 1."""
    original, calls = _Fit._step, []

    def stopping(self, *args):
        calls.append(None)
        if len(calls) == step:
            raise KeyboardInterrupt
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Fit, "_step", stopping)
        patch.setattr(checkpoint, "INTERVAL", 0.0)
        patch.setattr(checkpoint, "REST", 0.0)
        with pytest.raises(KeyboardInterrupt):
            ranks_worker.outcome("nb", Ranks(), folder)


@pytest.mark.parametrize("step", [9, 11], ids=["between epochs", "within one"])
def test_two_processes_go_on_from_what_one_has_left(step, tmp_path, alone):
    for name in ("states", "states-1"):
        leave_state(tmp_path / name, step=step)
    found = run_processes(["goes_on", "one_goes_on", "other_data"], 2, tmp_path)
    assert_same_bits(found["goes_on"])
    assert_close(found["goes_on"][0], alone("nb"), USUAL)
    assert all("1 of 2 processes found a checkpoint" in str(one["said"]) for one in found["one_goes_on"])
    assert all("2 processes have read different data" in str(one["said"]) for one in found["other_data"])


@pytest.fixture(scope="module")
def of_four(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return run_processes(["nb", "zinb", "few", "far", "sick", "apart"], 4, tmp_path_factory.mktemp("four"))


@pytest.fixture(scope="module")
def alone() -> Callable[[str], dict[str, np.ndarray]]:
    """Outcome of one process, worked out once."""
    known: dict[str, dict[str, np.ndarray]] = {}

    def outcome(name: str) -> dict[str, np.ndarray]:
        if name not in known:
            known[name] = ranks_worker.outcome(name, Ranks())
        return known[name]

    return outcome


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: Tolerance) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        if name.startswith("weight"):
            size = max(np.abs(value).max(), 1e-3)
            assert np.abs(found[name] - value).max() <= tolerance.weights * size, name
    for column, name in enumerate(EpochRecord._fields):
        limit = tolerance.bounds if name.endswith("elbo") else tolerance.weights
        np.testing.assert_allclose(
            found["history"][:, column], expected["history"][:, column], rtol=limit, atol=limit, err_msg=name
        )
    assert found["message"] == expected["message"]
    assert found["n_restarts"] == expected["n_restarts"]
    np.testing.assert_allclose(found["elbo"], expected["elbo"], rtol=tolerance.bounds)


def assert_same_bits(outcomes: list[dict[str, np.ndarray]]) -> None:
    first, *others = outcomes
    for other in others:
        assert set(other) == set(first)
        for name, value in first.items():
            assert value.tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize("name", FITS)
def test_two_processes_fit_what_one_does(name, of_two, alone):
    assert_same_bits(of_two[name])
    assert_close(of_two[name][0], alone(name), ROUNDING.get(name, USUAL))


def test_different_weights_are_an_error_everywhere(of_two, of_four):
    said = [str(outcome["said"]) for outcomes in (of_two, of_four) for outcome in outcomes["apart"]]
    assert all("ended with different weights" in sentence for sentence in said)
    assert len(said) == 6


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux has classes of threads")
def test_threads_of_the_process_group_do_not_interrupt(tmp_path):
    for found in run_processes(["threads"], 2, tmp_path)["threads"]:
        assert found["own"] == os.SCHED_OTHER
        assert (found["all"] == os.SCHED_BATCH).sum() >= 2  # gloo's own, and those that wait for it


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux has classes of threads")
def test_where_classes_of_threads_are_forbidden_nothing_is_changed(monkeypatch):
    asked = []

    def forbidden(pid, policy, priority):
        asked.append(policy)
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    with _patient_threads():
        assert asked == [os.SCHED_BATCH]
    assert asked == [os.SCHED_BATCH]


def test_the_same_again_gives_the_same_bits(of_two):
    assert_same_bits([of_two["nb"][0], of_two["nb_again"][0]])


@pytest.mark.parametrize("name", ["nb", "zinb", "few", "far"])
def test_four_processes_fit_what_one_does(name, of_four, alone):
    assert_same_bits(of_four[name])
    assert_close(of_four[name][0], alone(name), USUAL)


def test_all_go_back_where_one_has_a_loss_that_is_not_finite(of_two, alone):
    assert of_two["sick_once"][0]["n_restarts"] >= 1
    assert len(of_two["sick_once"][0]["history"]) == 6


def test_all_name_the_cell_that_one_could_not_fit(of_two, of_four, alone):
    sentence = str(alone("sick")["culprit"])
    assert f"cell={ranks_worker.SICK}" in sentence
    said = [str(outcome["culprit"]) for outcomes in (of_two, of_four) for outcome in outcomes["sick"]]
    assert said == [sentence] * 6


def test_scenarios_do_what_their_names_say(alone):
    assert len(alone("stops")["history"]) < 200
    assert not np.array_equal(alone("settles")["weight likelihood.dispersion.log_theta"], _plain_log_theta(alone))
    assert np.isnan(alone("all_cells")["history"][:, 2]).all()
    assert alone("sick_once")["n_restarts"] >= 1


def _plain_log_theta(alone):
    return alone("nb")["weight likelihood.dispersion.log_theta"]


@given(n=st.integers(0, 1000), size=st.integers(1, 40))
def test_shares_are_even_and_leave_nothing_out(n, size):
    rows = np.arange(n)
    shares = [Ranks(size, rank).mine(rows) for rank in range(size)]
    np.testing.assert_array_equal(np.concatenate(shares), rows)
    lengths = {len(share) for share in shares}
    assert max(lengths) - min(lengths) <= 1


def test_alone_nothing_is_done():
    ranks, tensor, rows = Ranks(), torch.ones(3), np.arange(3)
    ranks.sum_(tensor)
    ranks.broadcast_([tensor])
    ranks.check_equal([tensor])
    assert tensor.tolist() == [1, 1, 1]
    assert ranks.mine(rows) is rows
    assert ranks.weight(tensor, 3) is None
    culprit = object()
    assert said_by_first(ranks, culprit) is culprit


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/"


@pytest.mark.parametrize(
    "said",
    [
        f"{GLOO}pair.cc:537] Read error [127.0.0.1]:7053: Connection reset by peer. This is typically caused by",
        f"{GLOO}pair.cc:553] Connection closed by peer [127.0.0.1]:57056.",
        f"{GLOO}unbound_buffer.cc:78] Timed out waiting 600000ms for recv operation to complete",
        "Application timeout caused pair closure",
        "NCCL error: remote process exited or there was a network error, NCCL version 2.21.5",
        "NCCL communicator was aborted on rank 1.",
    ],
)
def test_a_process_that_does_not_answer_is_told_as_lost(said, monkeypatch):
    monkeypatch.setattr(distributed, "broadcast", lambda *_: raise_(RuntimeError(said)))
    with pytest.raises(LostProcessError, match="Another process of this run has ended"):
        Ranks(2, 0).broadcast_([torch.ones(2)])


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("ProcessGroupGloo::allgather: invalid tensor size at index 0 (expected (4), got (3))"),
        RuntimeError("CUDA error: device-side assert triggered"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
)
def test_another_error_between_processes_passes_as_it_is(error, monkeypatch):
    monkeypatch.setattr(distributed, "broadcast", lambda *_: raise_(error))
    with pytest.raises(RuntimeError) as raised:
        Ranks(2, 0).broadcast_([torch.ones(2)])
    assert raised.value is error


def raise_(error):
    raise error


@pytest.mark.parametrize(
    ("changes", "options", "complaint"),
    [
        ({}, {"on_interrupt": "keep"}, "`on_interrupt` is 'keep'"),
        ({"batch_size": 2}, {}, "3 processes, but the smallest minibatch has 2 cells"),
    ],
)
def test_what_processes_cannot_do_together_is_refused(changes, options, complaint, data, make_model, config):
    with pytest.raises(ValueError, match=complaint):
        fit(make_model(), data.table, config(**changes), ranks=Ranks(3, 0), **options)


def test_penalties_on_pairs_of_cells_are_refused(data, config):
    network = {"n_hidden": 4, "n_layers": 1, "norm": "batch", "n_latent": 2}
    parts = {"encoder": Part("mlp", network | {"dropout_rate": 0.1}), "decoder": Part("mlp", network)}
    parts |= {"library": Part("observed"), "likelihood": Part("nb"), "prior": Part("normal")}
    model = ModelSpec(dims=data.dims, **parts, penalties=(Part("mmd"),)).build()
    with pytest.raises(ValueError, match="Leave `penalties` out"):
        fit(model, data.table, config(), ranks=Ranks(2, 0))


def test_models_without_an_encoder_are_refused(data, config):
    parts = {"encoder": Part("free", {"n_latent": 2, "n_cells": data.table.n_cells})}
    parts |= {"decoder": Part("linear", {"n_latent": 2}), "library": Part("observed")}
    parts |= {"likelihood": Part("nb"), "prior": Part("normal")}
    with pytest.raises(ValueError, match="fitted by one process, but 2 were started"):
        fit(ModelSpec(dims=data.dims, **parts).build(), data.table, config(), ranks=Ranks(2, 0))
