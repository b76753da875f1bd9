"""Tools: fit a model, ask it."""

from ._normalized_expression import normalized_expression
from ._scvi import scvi

__all__ = ["normalized_expression", "scvi"]
