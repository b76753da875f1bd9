"""What may enter `uns`: every type that breaks files is changed into one that does not, or refused."""

from __future__ import annotations

import datetime
import enum
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from scanpy_scvi.store.uns import from_uns_strings, to_uns

Pair = namedtuple("Pair", "a b")


class Colour(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


@dataclass
class Record:
    a: int = 1


REFUSED = {
    "set": {1, 2},
    "bytes": b"abc",
    "path": Path("a"),
    "date": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "dataclass": Record(),
    "function": len,
    "type": int,
    "enum": enum.Enum("Plain", "A").A,
    "series": pd.Series([1]),
    "index": pd.Index(["a"]),
    "table": pd.DataFrame({"a": [1]}),
    "tensor": torch.ones(2),
    "torch type": torch.float32,
    "sparse": sparse.coo_matrix(np.eye(2)),
    "ragged": [[1], [1, 2]],
    "None in a list": [1, None],
    "None in strings": ["a", None],
    "None in an array": np.array([None, "a"], dtype=object),
    "mixed": [1, "a"],
    "list of dicts": [{"a": 1}],
    "objects": np.array([{"a": 1}, 2], dtype=object),
    "times": np.array(["2026-01-01"], dtype="datetime64[D]"),
    "records": np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
    "complex": 1j,
    "large int": 2**70,
    "large ints": [2**70],
    "int key": {1: 2},
    "tuple key": {("a", "b"): 1},
    "slash": {"a/b": 1},
    "empty key": {"": 1},
}
CHANGED = {
    "tuple": ((1, 2), np.array([1, 2])),
    "named tuple": (Pair(1.5, 2.5), np.array([1.5, 2.5])),
    "list": ([True, False], np.array([True, False])),
    "nested list": ([[1, 2], [3, 4]], np.array([[1, 2], [3, 4]])),
    "strings": (("a", "b/c", "ä ö"), np.array(["a", "b/c", "ä ö"], dtype=object)),
    "string array": (np.array(["a", "bc"]), np.array(["a", "bc"], dtype=object)),
    "empty": ((), np.array([])),
    "string enum": (Colour.RED, "red"),
    "int enum": (Number.ONE, 1),
    "numpy float": (np.float32(0.5), 0.5),
    "numpy int": (np.int64(3), 3),
    "numpy bool": (np.bool_(True), True),
    "numpy string": (np.str_("a"), "a"),
    "None": ({"a": None, "b": 1}, {"b": 1}),
    "nested None": ({"a": {"b": None}}, {"a": {}}),
    "ordered": (OrderedDict(a=1), {"a": 1}),
    "default": (defaultdict(int, a=1), {"a": 1}),
    "proxy": (MappingProxyType({"a": 1}), {"a": 1}),
    "float32": (np.ones(3, np.float32), np.ones(3, np.float32)),
    "scalar array": (np.array(7), np.array(7)),
    "NaN": (float("nan"), float("nan")),
    "dotted": ({"encoder.0.weight": np.eye(2)}, {"encoder.0.weight": np.eye(2)}),
}


def same(a, b):
    if isinstance(b, dict):
        return type(a) is dict and set(a) == set(b) and all(same(a[k], b[k]) for k in b)
    if isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    return type(a) is type(b) and (a == b or (a != a and b != b))


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind):
    with pytest.raises(TypeError, match=r"uns\['fit'\].*cannot be stored|cannot be stored.*"):
        to_uns({"fit": {"value": REFUSED[kind]}})


@pytest.mark.parametrize("kind", CHANGED)
def test_changed(kind):
    value, expected = CHANGED[kind]
    assert same(to_uns(value), expected)
    assert same(to_uns({"a": value})["a"], expected)


def test_the_place_of_what_is_refused_is_named():
    with pytest.raises(TypeError, match=r"uns\['a'\]\['b'\] is of type set"):
        to_uns({"a": {"b": {1}}})
    with pytest.raises(TypeError, match="'c/d'"):
        to_uns({"a": {"c/d": 1}})


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata 0.12 on its own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_all_that_passes_survives_a_file(suffix, tmp_path):
    adata = ad.AnnData(np.ones((2, 2), np.float32))
    adata.uns["fit"] = to_uns({kind: value for kind, (value, _) in CHANGED.items()})
    getattr(adata, f"write_{suffix}")(tmp_path / f"a.{suffix}")
    back = getattr(ad, f"read_{suffix}")(tmp_path / f"a.{suffix}").uns["fit"]
    assert set(back) == set(CHANGED)
    for kind, (_, expected) in CHANGED.items():
        if isinstance(expected, np.ndarray) and expected.dtype == object:
            assert from_uns_strings(back[kind]) == tuple(expected)
        elif isinstance(expected, dict):
            assert set(back[kind]) == set(expected)
        else:
            np.testing.assert_array_equal(np.asarray(back[kind]), np.asarray(expected))


def test_empty_lists_of_strings_come_back_empty():
    assert from_uns_strings(to_uns(())) == ()
    assert from_uns_strings(to_uns([""])) == ("",)
