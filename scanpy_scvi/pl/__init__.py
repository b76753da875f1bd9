"""Draw what the other parts stored."""

from ._dispersion import dispersion
from ._history import history

__all__ = ["dispersion", "history"]
