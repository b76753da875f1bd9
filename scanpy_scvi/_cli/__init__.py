"""The command line. Nothing heavy is imported before a command runs: ``--help`` answers at once."""

from .entry import main

__all__ = ["main"]
