"""Draw what the other parts stored."""

from ._history import history

__all__ = ["history"]
