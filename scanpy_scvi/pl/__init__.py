"""Draw what the other parts stored."""

from ._dispersion import dispersion
from ._history import history
from ._posterior_predictive_check import posterior_predictive_check

__all__ = ["dispersion", "history", "posterior_predictive_check"]
