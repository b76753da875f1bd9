"""Draw what the other parts stored."""

from ._dispersion import dispersion
from ._history import history
from ._integration import integration
from ._interpolation import interpolation
from ._trust import trust

__all__ = ["dispersion", "history", "integration", "interpolation", "trust"]
