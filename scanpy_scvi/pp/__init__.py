"""Before the fit."""

from ._check import check

__all__ = ["check"]
