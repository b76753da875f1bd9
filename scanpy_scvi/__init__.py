"""scVI inside scanpy: one call trains the model in place, and the fitted model travels in the `.h5ad`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import datasets, get, metrics, numerics, pl, pp, tl

__version__ = "0.1.0"
__all__ = ["__version__", "datasets", "get", "metrics", "numerics", "pl", "pp", "tl"]


def __getattr__(name: str) -> Any:
    # PEP 562: torch and the numba kernels load on first use, so that importing the package stays cheap.
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
