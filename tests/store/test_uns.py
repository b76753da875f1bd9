"""The door to `uns`: what passes, what is changed, what is refused."""

from __future__ import annotations

import datetime
import enum
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from scanpy_scvi.store.uns import from_uns_strings, to_uns


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        b"bytes",
        Colour.RED,
        Path("a"),
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        len,
        int,
        pd.Series([1]),
        pd.Index(["a"]),
        torch.zeros(2),
        torch.float32,
        sparse.coo_array((2, 2)),
        [[1], [1, 2]],
        np.array([None, "a"], dtype=object),
        np.array([object()]),
        None,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_files_cannot_hold_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        to_uns({"key": [value] if value is None else value})


@pytest.mark.parametrize("key", ["a/b", "", 1, ("a", "b")])
def test_keys_that_files_cannot_hold_are_refused(key):
    with pytest.raises(TypeError, match="cannot be stored"):
        to_uns({"outer": {key: 1}})


def test_none_is_left_out():
    assert to_uns({"a": None, "b": {"c": None, "d": 1}}) == {"b": {"d": 1}}


def test_numpy_scalars_become_pythons():
    stored = to_uns({"f": np.float32(0.5), "i": np.int64(3), "b": np.bool_(True)})
    assert {k: type(v) for k, v in stored.items()} == {"f": float, "i": int, "b": bool}


def test_sequences_become_arrays():
    stored = to_uns({"names": ("a", "b/c"), "numbers": [1, 2], "none": ()})
    assert from_uns_strings(stored["names"]) == ("a", "b/c")
    np.testing.assert_array_equal(stored["numbers"], [1, 2])
    assert from_uns_strings(stored["none"]) == ()
