"""What is left of a run that something went wrong with: a line for each fault, `ok` or `FAILED`.

    OMP_NUM_THREADS=1 python tests/benchmark/faults.py [--megabytes 200 --only rank single … --folder DIR]

Counts are simulated, lie in files of about so many megabytes, and stay there (the buffer holds a sixth of them). Each
run is a process of its own, or several under torchrun. After every fault it is looked at that

- the run ended, all processes of it, with exactly one sentence of ours;
- the user's file is as it was, byte for byte, and nothing lies beside it but what is documented;
- the same command then works, goes on from the checkpoint where there is one, and gives what a run gives that never
  stopped: the same bits on as many processes, and a held-out bound within 1e-3 on others.

A full disk is a small tmpfs, which root alone can mount.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from _fault_runs import Fell, Place, check, compared, contents, goes_on, killed, refused, size_of, small_disk
from _faulty import places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def rank(place: Place) -> Iterator[str]:
    """SIGKILL of one of two processes, in the second epoch."""
    before = contents(place.source("h5ad"))
    for which in (1, 0):
        name = f"rank {which} of 2 killed mid-epoch"
        with place.copy_of("h5ad", "rank") as path:
            states, out = path.parent / "states", path.parent / "out.h5ad"
            step = place.steps + place.steps // 2
            fault = {"what": "kill", "rank": which, "step": step}
            run = place.run(path, out, "--checkpoint", states, size=2, interval=0.0, **fault)
            told = refused(run, "nothing was written|Nothing was written")
            check(contents(path) == before, "the file was changed")
            check(sorted(p.name for p in path.parent.iterdir()) == [path.name, "states"], "something lies beside it")
            found = []
            for size in (2, 1, 3) if which else (2,):
                again = path.parent / f"states_{size}"
                shutil.copytree(states, again)
                goes_on(place.run(path, out, "--checkpoint", again, size=size, interval=0.0))
                check(not list(again.iterdir()), "states were left after success")
                found.append(f"by {size} {compared(out, place.expected(2))}")
        yield f"{name}: {told}; none left; goes on {', '.join(found)}"


def single(place: Place) -> Iterator[str]:
    """SIGKILL of a process of its own, within an epoch."""
    with place.copy_of("h5ad", "single") as path:
        before, states, out = contents(path), path.parent / "states", path.parent / "out.h5ad"
        step = place.steps + place.steps // 2
        killed(place.run(path, out, "--checkpoint", states, interval=0.0, what="kill", step=step))
        check(contents(path) == before, "the file was changed")
        check(sorted(p.name for p in path.parent.iterdir()) == [path.name, "states"], "something lies beside it")
        goes_on(place.run(path, out, "--checkpoint", states))
        found = compared(out, place.expected())
        check(found == "the same bits", found)
        check(not list(states.iterdir()), "states were left after success")
    yield f"one process killed mid-epoch: goes on to {found}"


def write(place: Place) -> Iterator[str]:
    """SIGKILL while results are written into the user's own file."""
    for kind, moment in (("h5ad", {"write": place.source("h5ad").stat().st_size // 2}), ("zarr", {"copy": 3})):
        with place.copy_of(kind, "write") as path:
            before, states = contents(path), path.parent / "states"
            killed(place.run(path, path, "--checkpoint", states, interval=0.0, what="kill", **moment))
            check(contents(path) == before, "the file was changed")
            left = sorted(p.name for p in path.parent.iterdir() if p not in (path, states))
            check(len(left) == 1 and left[0].endswith(".part"), f"beside it lies {left}")
            goes_on(place.run(path, path, "--checkpoint", states))
            found = compared(path, place.expected())
            check(found == "the same bits", found)
            check(sorted(p.name for p in path.parent.iterdir()) == [path.name, "states"], "the .part was left")
        yield f".{kind} in place, killed mid-write: the file as it was, a .part beside it; again: {found}, .part gone"


def full(place: Place) -> Iterator[str]:
    """A disk that fills up while the fit runs, and one that has no room for a checkpoint."""
    for kind, source in (("h5ad", "h5ad"), ("zarr", "gzip")):
        with place.copy_of(source, "full") as path, small_disk(place.folder, 11 * size_of(path) // 5) as disk:
            if disk is None:
                yield f"disk full for .{kind}: skipped, as this user cannot mount a tmpfs"
                continue
            before, states, out = contents(path), path.parent / "states", disk / f"out.{kind}"
            old = (shutil.copy(place.source("h5ad"), out), contents(out))[1] if kind == "h5ad" else {}
            fault = {"what": "fill", "path": str(disk), "step": place.steps}
            told = refused(
                place.run(path, out, "--checkpoint", states, interval=0.0, **fault), "could not be written, and is as"
            )
            check(contents(path) == before, "the file was changed")
            check((contents(out) if out.exists() else {}) == old, "the old output was changed")
            beside = sorted(p.name for p in disk.iterdir() if p != out)
            check(beside == ["filler"], f"beside it lies {beside}")
            (disk / "filler").unlink()
            out.unlink(missing_ok=True)
            goes_on(place.run(path, out, "--checkpoint", states))
            found = compared(out, place.expected())
        yield f"disk full for .{kind}: {told.replace(str(disk), '…')}; the .part is gone; with room: {found}"
    with place.copy_of("h5ad", "full") as path, small_disk(place.folder, 2**18) as disk:
        if disk is None:
            yield "disk full for a checkpoint: skipped, as this user cannot mount a tmpfs"
            return
        out = path.parent / "out.h5ad"
        run = place.run(path, out, "--checkpoint", disk / "states")
        check(run.code == 0, run.said[-2000:])
        told = re.findall("no checkpoint could be written.*", run.said)
        check(told, "nothing was said")
        found = compared(out, place.expected())
        check(not list((disk / "states").iterdir()), "something was left")
    yield f'disk full for a checkpoint: "{told[0].replace(str(disk), "…")}"; result: {found}'


def damage(place: Place) -> Iterator[str]:
    """Files that are cut off or have damaged chunks."""
    cases: tuple[tuple[str, str, Callable[[Path], None], str], ...] = (
        ("truncated .h5ad", "h5ad", cut, "cannot be read.*complete"),
        ("corrupt gzip chunk", "gzip", corrupt_gzip, "cannot be read from position.*damaged"),
        ("corrupt zarr chunk", "zarr", corrupt_zarr, "cannot be read from position.*damaged"),
        ("missing zarr chunk", "zarr", lose_chunk, "lacks 1 of .* chunks.*damaged"),
    )
    for name, kind, harm, pattern in cases:
        with place.copy_of(kind, "damage") as path:
            harm(path)
            before = contents(path.parent)
            told = refused(place.run(path, path), pattern)
            check(contents(path.parent) == before, "the file was changed, or something lies beside it")
        yield f"{name}: {told.replace(str(path.parent), '…')}; the file as it was"


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def corrupt_gzip(path: Path) -> None:
    found = places(path)
    with path.open("r+b") as file:
        file.seek(found[len(found) // 2][0])
        file.write(b"\xff" * 64)


def chunks(path: Path) -> list[Path]:
    """Files of the chunks of the stored counts."""
    return sorted(p for p in (path / "X" / "data").rglob("*") if p.is_file() and p.name[-1].isdigit())


def corrupt_zarr(path: Path) -> None:
    chunk = chunks(path)[0]
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])


def lose_chunk(path: Path) -> None:
    chunks(path)[0].unlink()


def change(place: Place) -> Iterator[str]:
    """A file that another program changes while it is trained on."""
    for name, what, pattern in (
        # what HDF5 still holds of a small file (8 MiB) is not read again, and then it is noticed at the end
        ("edited in place", "edit", "are not those that were read before.*Restore it|nothing was written"),
        ("replaced by another", "exchange", "was changed while it was in use, so nothing was written"),
    ):
        with place.copy_of("h5ad", "change") as path:
            states, out = path.parent / "states", path.parent / "out.h5ad"
            other = path.parent / "other"
            other.write_bytes(b"another")
            fault = {"what": what, "path": str(path), "by": str(other), "step": place.steps + place.steps // 2}
            fault["places"] = places(path)
            run = place.run(path, out, "--checkpoint", states, interval=0.0, **fault)
            told = refused(run, pattern)
            check(not out.exists(), "something was written")
            shutil.copy(place.source("h5ad"), path)
            goes_on(place.run(path, out, "--checkpoint", states))
            found = compared(out, place.expected())
            check(found == "the same bits", found)
        yield f"file {name} in training: {told.replace(str(path.parent), '…')}; restored, goes on to {found}"


CASES = {function.__name__: function for function in (single, rank, write, full, damage, change)}


def main(argv: list[str] | None = None) -> int:
    """Run the faults; the number of those with a flaw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")  # anndata's advice on versions of zarr
    failed = 0
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        place = Place(Path(folder), args.megabytes)
        for name in args.only:
            start = time.perf_counter()
            try:
                for line in CASES[name](place):
                    print(f"ok     {time.perf_counter() - start:5.0f} s  {line}", flush=True)
                    start = time.perf_counter()
            except Fell as error:
                failed += 1
                print(f"FAILED {time.perf_counter() - start:5.0f} s  {name}: {error}", flush=True)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
