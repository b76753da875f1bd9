"""Parse, run, report: exit code 0 is success, 1 a failure told in one sentence, 2 wrong usage."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

from .. import __version__
from . import demo, scvi
from .processes import Told

if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTION = """scVI for count data in .h5ad and .zarr files: batch-corrected latent space, denoised expression and the
fitted model, all written into the one output file."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        Words of the command line without the program's name; by default those of this process.

    Returns
    -------
    The exit code: 0 success, 1 failure. Wrong usage leaves through ``SystemExit(2)``.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    _let_idle_threads_sleep()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what libraries print must not mix with the result
            summary = args.run(args)
    except Told:
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if args.debug:
            traceback.print_exc()
        print(f"scanpy-scvi: {_sentence(error)}", file=sys.stderr)
        return 1
    if summary is not None:
        print(json.dumps(_without_nan(summary)) if args.json else args.describe(summary))
    return 0


def _let_idle_threads_sleep() -> None:
    """Ask OpenMP not to spin while it waits, unless the user chose otherwise; read when the libraries load.

    numba and torch each bring a pool of threads. Where cores are fewer than threads, or others use them too, the
    spinning of one pool stops the other: ten epochs of the demo took 20 s instead of 1 to 4.
    """
    if not {"numba", "torch", "sklearn"} & set(sys.modules):
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="scanpy-scvi", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"scanpy-scvi {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    common.add_argument("--debug", action="store_true", help="after a failure, print the traceback too")
    common.add_argument(
        "--verbosity",
        type=int,
        choices=range(5),
        default=1,
        help="what is logged to stderr, as scanpy's own: 0 errors, 1 warnings and progress (default), 2 info, "
        "3 hints, 4 debug",
    )
    for module in (scvi, demo):
        module.add_command(commands, common)
    return parser


def _sentence(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; nothing was written."
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or f"{type(error).__name__}, without a message; run again with --debug."


def _without_nan(value: Any) -> Any:
    """Replace numbers that JSON cannot hold by null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
