"""Runs of the command line with a fault, and what is looked at after them, for `faults.py`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

FAULTY = Path(__file__).parent / "_faulty.py"
GENES, DENSITY, PIECE = 2000, 0.5, 1000
BATCH_SIZE, EPOCHS = 512, 3
SECONDS = 600
"""After which a run hangs."""
CLOSE = 1e-3
"""Of a held-out bound, between numbers of processes."""


class Run(NamedTuple):
    """How a run ended."""

    code: int
    said: str
    left: int
    """Processes that are still there."""

    @property
    def sentences(self) -> list[str]:
        """Errors of ours."""
        return re.findall(r"^scanpy-scvi: (.*)", self.said, re.MULTILINE)


class Place:
    """A folder with the files of the user, and the means to run the command."""

    def __init__(self, folder: Path, megabytes: float) -> None:
        self.folder = folder
        self.cells = max(2 * BATCH_SIZE, round(megabytes * 1e6 / (8 * GENES * DENSITY)))
        self.buffer = int(megabytes * 1e6 / 6)
        self.steps = -(-int(0.9 * self.cells) // BATCH_SIZE)
        """Of an epoch."""
        self._known: dict[int, Path] = {}

    def source(self, kind: str) -> Path:
        """A file of the counts: `h5ad`, `gzip` or `zarr`."""
        import anndata as ad

        name = {"h5ad": "in.h5ad", "gzip": "gzip.h5ad", "zarr": "in.zarr"}[kind]
        path = self.folder / "sources" / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            adata = simulated(self.cells) if kind == "h5ad" else ad.read_h5ad(self.source("h5ad"))
            adata.write_zarr(path) if kind == "zarr" else adata.write_h5ad(path, compression={"gzip": "gzip"}.get(kind))
        return path

    @contextmanager
    def copy_of(self, kind: str, name: str) -> Iterator[Path]:
        """A file of the user, alone in a new folder."""
        folder = self.folder / name
        folder.mkdir()
        source = self.source(kind)
        path = folder / source.name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, path)
        try:
            yield path
        finally:
            shutil.rmtree(folder)

    def run(
        self, path: Path, out: Path, /, *words: object, size: int = 1, interval: float = 0.3, **fault: object
    ) -> Run:
        """Run the command, with a fault."""
        told = json.dumps({"buffer": self.buffer, "interval": interval, **fault})
        options = ["--batch-key", "batch", "--max-epochs", EPOCHS, "--no-early-stopping", "--n-hidden", 32]
        options += ["--batch-size", BATCH_SIZE, "--n-latent", 5, "--device", "cpu", "--verbosity", 2]
        program = [sys.executable]
        program += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", size] if size > 1 else []
        command = [*program, FAULTY, told, "scvi", path, out, *options, *words]
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(
                [str(word) for word in command], stdout=said, stderr=said, start_new_session=True
            )
            try:
                code = process.wait(timeout=SECONDS)
                left = still_there(process.pid)
            finally:
                end(process.pid)
            said.seek(0)
            return Run(code, said.read(), left)

    def expected(self, size: int = 1) -> Path:
        """What a run of so many processes gives that nothing stops."""
        if size not in self._known:
            out = self._known[size] = self.folder / f"expected_{size}.h5ad"
            check(self.run(self.source("h5ad"), out, size=size).code == 0, "a run without a fault failed")
        return self._known[size]


def simulated(n_cells: int) -> Any:
    """Counts of five types of cells in two batches, half of them zero."""
    import anndata as ad
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(0)
    rate = rng.gamma(2.0, 0.4, size=(5, GENES)) * rng.gamma(4.0, 0.25, size=(5, GENES))
    kind = np.sort(rng.integers(5, size=n_cells))
    parts = [rng.poisson(rate[kind[i : i + PIECE]]).astype(np.float32) for i in range(0, n_cells, PIECE)]
    obs = pd.DataFrame({"batch": pd.Categorical((np.arange(n_cells) % 2).astype(str))})
    obs.index, names = [f"cell_{i}" for i in range(n_cells)], [f"gene_{i}" for i in range(GENES)]
    counts = sparse.vstack([sparse.csr_matrix(part) for part in parts], format="csr")
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=names))


# ---- what is looked at


class Fell(Exception):
    """Something is not as it should be."""


def check(holds: object, otherwise: str) -> None:
    if not holds:
        raise Fell(otherwise)


def still_there(group: int) -> int:
    """Processes of a run that are left five seconds after it ended."""
    for _ in range(50):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return 0
        time.sleep(0.1)
    return 1


def end(group: int) -> None:
    """End what we have started."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def contents(path: Path) -> dict[str, str]:
    """Fingerprints of a file, or of all below a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {str(p.relative_to(path.parent)): blake2b(p.read_bytes()).hexdigest() for p in files}


def results(path: Path) -> dict[str, np.ndarray]:
    """Latent states, weights and history of a fit."""
    import anndata as ad
    import h5py
    import zarr

    group = h5py.File(path) if path.suffix == ".h5ad" else zarr.open_group(path, mode="r")
    fit, latent = (ad.io.read_elem(group[name]) for name in ("uns/scvi", "obsm/X_scvi"))
    if path.suffix == ".h5ad":
        group.close()
    inner = {f"{part} {name}": np.asarray(fit[part][name]) for part in ("state", "history") for name in fit[part]}
    return {"latent": np.asarray(latent), **inner}


def compared(path: Path, expected: Path) -> str:
    """Say how a result differs from what was expected; a difference beyond what is documented is an error."""
    here, there = results(path), results(expected)
    if all(here[name].tobytes() == there[name].tobytes() for name in there):
        return "the same bits"
    name = "history validation_elbo"
    apart = abs(here[name][-1] / there[name][-1] - 1)
    check(apart < CLOSE, f"the held-out bound is {apart:.1e} off")
    return f"the bound within {apart:.0e}"


def refused(run: Run, pattern: str) -> str:
    """Check that a run ended as it should, and return its sentence."""
    check(run.code != 0, "the run succeeded")
    check(not run.left, "processes were left")
    check(len(run.sentences) == 1, f"{len(run.sentences)} sentences were said: {run.said[-2000:]}")
    check(re.search(pattern, run.sentences[0]), f"it said: {run.sentences[0]}")
    return f'"{run.sentences[0]}"'


def killed(run: Run) -> None:
    check(run.code == -signal.SIGKILL, f"it was not killed: {run.code} {run.said[-2000:]}")


def goes_on(run: Run) -> None:
    """Check that a run went on from a checkpoint, to its end."""
    check(run.code == 0, run.said[-2000:])
    check("going on from" in run.said, "it began anew")


def size_of(path: Path) -> int:
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")))


@contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[Path | None]:
    """A tmpfs of some size; None where it cannot be mounted."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)
