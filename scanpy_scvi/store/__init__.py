"""The only layer that knows both AnnData and models."""

from .covariates import Categories, ColumnKeys
from .keys import SCHEMA, Keys
from .load import Fitted, find_entry, load
from .read import Data, read

__all__ = ["SCHEMA", "Categories", "ColumnKeys", "Data", "Fitted", "Keys", "find_entry", "load", "read"]
