"""What a fit left in an AnnData, as tables."""

from ._fits import convergence
from ._history import history

__all__ = ["convergence", "history"]
