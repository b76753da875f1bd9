"""Matrices over genes as tables of pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping


def correlation_pairs(result: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each pair of `result["genes"]`, from the matrices that `tl.gene_correlation` stores."""
    genes = np.array([str(gene) for gene in result["genes"]], dtype=object)
    first, second = np.triu_indices(len(genes), 1)
    denoised, observed, high, tail = (
        np.asarray(result[name])[first, second] for name in ("denoised", "observed", "null_high", "null_tail")
    )
    return pd.DataFrame(
        {
            "gene1": genes[first],
            "gene2": genes[second],
            "denoised": denoised,
            "observed": observed,
            "null_low": -high,
            "null_high": high,
            "null_tail": tail,
            "beyond_null": np.abs(denoised) > high,
        }
    )
