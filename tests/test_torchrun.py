"""The command line under torchrun: one result, one voice, and an end in time where a process is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import scanpy_scvi as sv
from scanpy_scvi._cli import processes
from scanpy_scvi._cli.processes import Launched, launched
from scanpy_scvi.training.fit import _Fit

SMALL = ["--batch-key", "batch", "--max-epochs", "3", "--n-latent", "4"]
FOR_EVER = ["--batch-key", "batch", "--max-epochs", "1000000", "--no-early-stopping", "--progress"]
FAULTY = Path(__file__).parent / "benchmark" / "_faulty.py"
SECONDS = 200
"""After which a run hangs."""
OURS = "scanpy-scvi: "
"""What our own sentences begin with."""


@pytest.fixture
def counts(tmp_path):
    sv.datasets.simulate(n_cells=151, n_genes=60, density=0.4, random_state=1).write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


def torchrun(*words, size=2, program=("-m", "scanpy_scvi"), **options):
    """Start a run in a session of its own, so that it can be interrupted as from a terminal."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    command = [*run, *program, "scvi", *map(str, words)]
    return subprocess.Popen(command, text=True, start_new_session=True, **options)


def end(run):
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGKILL)


def wait_for(text, path, run):
    """Wait until a run has said something."""
    for _ in range(10 * SECONDS):
        if text in path.read_text():
            return
        assert run.poll() is None, path.read_text()
        time.sleep(0.1)
    pytest.fail(f"{text!r} was not said within {SECONDS} s:\n{path.read_text()}")


def process_of(run, rank):
    """Process number of one rank."""
    for child in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    return pytest.fail(f"rank {rank} is not there")


def sentences(text):
    return re.findall(f"{OURS}.*", text)


# ---- what torchrun says


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in processes.SET_BY_TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # of something else
    assert launched() == Launched(rank=0, size=1, local_rank=0, local_size=1)
    for name, value in zip(processes.SET_BY_TORCHRUN, ["5", "8", "1", "4", "localhost", "1"], strict=True):
        monkeypatch.setenv(name, value)
    assert launched() == Launched(rank=5, size=8, local_rank=1, local_size=4)


@pytest.mark.parametrize(("asked", "expected"), [(None, 4), ("1", 4), ("3", 3), ("", 4)])
def test_a_process_takes_its_share_of_the_cores(asked, expected, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(9), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert processes.threads(Launched(1, 2, 1, 2)) == expected
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(1))
    assert processes.threads(Launched(1, 2, 1, 2)) in {1, 3}


@pytest.mark.parametrize(
    ("device", "has_cuda", "expected"),
    [("cuda", True, "cuda:3"), ("auto", True, "cuda:3"), ("auto", False, "auto"), ("cpu", True, "cpu")],
)
def test_a_process_takes_the_gpu_of_its_number(device, has_cuda, expected, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_cuda)
    assert processes.device_of(Launched(7, 8, 3, 4), device) == expected
    assert processes.device_of(Launched(0, 1, 0, 1), device) == device


@pytest.mark.parametrize(
    ("device", "n_gpus", "complaint"),
    [
        ("cuda:1", 4, r"`device` is 'cuda:1', which each of the 4 processes of this machine would take.*'cuda'"),
        ("cuda", 2, r"4 processes were started on this machine, but it has 2 GPUs.*at most 2"),
        ("auto", 2, r"4 processes were started on this machine, but it has 2 GPUs.*--device cpu"),
    ],
)
def test_no_two_processes_take_one_gpu(device, n_gpus, complaint, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: n_gpus)
    with pytest.raises(ValueError, match=complaint):
        processes.check_device(Launched(7, 8, 3, 4), device)
    processes.check_device(Launched(1, 2, 0, 1), "cuda:1")  # one on each machine
    processes.check_device(Launched(0, 4, 0, 4), "cpu")


def test_a_gpu_that_all_would_take_is_refused_once(counts, tmp_path):
    run = torchrun(counts, tmp_path / "out.h5ad", *SMALL, "--device", "cuda:0", stderr=subprocess.PIPE)
    try:
        _, said = run.communicate(timeout=SECONDS)
    finally:
        end(run)
    assert run.returncode != 0
    told = sentences(said)
    assert len(told) == 1, said
    assert "which each of the 2 processes of this machine would take" in told[0]


# ---- for real


def test_two_processes_write_what_one_does_and_one_of_them_speaks(counts, tmp_path):
    run = torchrun(counts, tmp_path / "two.h5ad", *SMALL, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, said = run.communicate(timeout=SECONDS)
    finally:
        end(run)
    assert run.returncode == 0, said
    assert json.loads(out)["n_cells"] == 151  # one object, so one process printed
    assert said.count("scvi: still improving") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "two.h5ad"]
    alone = ad.read_h5ad(counts)
    sv.tl.scvi(alone, "batch", max_epochs=3, n_latent=4, progress=False)
    two = ad.read_h5ad(tmp_path / "two.h5ad")
    # sums are rounded elsewhere; where products are of bfloat16, by 3 digits
    close = {"rtol": 2e-2, "atol": 2e-2} if _rounds() else {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(two.obsm["X_scvi"], alone.obsm["X_scvi"], **close)
    np.testing.assert_allclose(two.layers["scvi_normalized"], alone.layers["scvi_normalized"], **close)
    bound = "validation_elbo"
    np.testing.assert_allclose(two.uns["scvi"]["history"][bound], alone.uns["scvi"]["history"][bound], rtol=1e-4)


def _rounds():
    from scanpy_scvi.modules.precision import bfloat16_pays

    return bfloat16_pays()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="ranks are found in /proc")
@pytest.mark.parametrize(("signal_number", "rank"), [(signal.SIGKILL, 1), (signal.SIGKILL, 0), (signal.SIGINT, None)])
def test_the_loss_of_a_process_ends_the_run_with_one_sentence(signal_number, rank, counts, tmp_path):
    said = tmp_path / "said"
    with said.open("w") as stream:
        run = torchrun(counts, tmp_path / "out.h5ad", *FOR_EVER, stdout=subprocess.DEVNULL, stderr=stream)
        try:
            wait_for("2/1000000", said, run)
            if rank is None:
                os.killpg(run.pid, signal_number)  # Ctrl-C reaches all that run in a terminal
            else:
                os.kill(process_of(run, rank), signal_number)
            run.wait(timeout=SECONDS)
        finally:
            end(run)
    assert run.returncode != 0
    told = sentences(said.read_text())
    assert len(told) == 1, told
    assert "othing was written" in told[0]
    assert rank is None or "process of this run" in told[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "said"]


def test_what_a_killed_run_has_left_one_process_goes_on_from(counts, tmp_path, monkeypatch):
    fault = json.dumps({"buffer": 2**28, "interval": 0.0, "what": "kill", "rank": 1, "step": 8})  # of 2 an epoch
    words = [counts, tmp_path / "out.h5ad", *SMALL, "--max-epochs", 6, "--checkpoint", tmp_path / "states"]
    run = torchrun(*words, program=[str(FAULTY), fault], stderr=subprocess.PIPE)
    try:
        _, said = run.communicate(timeout=SECONDS)
    finally:
        end(run)
    assert run.returncode != 0
    assert len(sentences(said)) == 1, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "states"]
    adata, whole = ad.read_h5ad(counts), ad.read_h5ad(counts)
    options = {"max_epochs": 6, "n_latent": 4, "progress": False}
    sv.tl.scvi(whole, "batch", **options)
    steps, step = [], _Fit._step
    monkeypatch.setattr(_Fit, "_step", lambda self, *args: steps.append(None) or step(self, *args))
    sv.tl.scvi(adata, "batch", checkpoint=tmp_path / "states", **options)
    assert len(steps) == 2 * 3  # three epochs were left
    bound = "validation_elbo"
    np.testing.assert_allclose(adata.uns["scvi"]["history"][bound], whole.uns["scvi"]["history"][bound], rtol=1e-3)
    assert list((tmp_path / "states").iterdir()) == []


def test_a_mistake_that_all_make_is_told_once(counts, tmp_path):
    words = [counts, tmp_path / "out.h5ad", "--batch-key", "plate"]
    run = torchrun(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        _, said = run.communicate(timeout=SECONDS)
    finally:
        end(run)
    assert run.returncode == 1
    told = sentences(said)
    assert len(told) == 1
    assert "'plate'" in told[0]
    assert not (tmp_path / "out.h5ad").exists()
