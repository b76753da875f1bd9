"""A pickle is read as data: what it would call is never called."""

import collections
import contextlib
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanpy_scvi.store.scvi_tools.pickled import Call, Name, parse

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(min_size=1)
plain = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(plain, st.sampled_from([4, 5]))
def test_plain_content_is_what_python_reads(value, protocol):
    assert parse(pickle.dumps(value, protocol)) == value


@given(plain.filter(lambda value: not isinstance(value, bytes)))
def test_protocol_2_has_the_same_containers(value):
    text = pickle.dumps([value, "end"], 2)
    assert parse(text)[1] == "end"


class Malicious:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (os.system, "mkdir owned"),
        (subprocess.getoutput, "mkdir owned"),
        (os.mkdir, "owned"),
        (exec, "import os; os.mkdir('owned')"),
        (eval, "__import__('os').mkdir('owned')"),
    ],
)
def test_nothing_is_called(tmp_path, monkeypatch, function, argument, protocol):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({"a": Malicious(function, (argument,))}, protocol)
    try:
        found = parse(data)["a"]
    except ValueError:
        assert protocol == 0  # which has operations that no model needs
    else:
        assert isinstance(found, Call)
        assert found.function.endswith(f".{function.__name__}")
    assert not Path("owned").exists()
    pickle.loads(data)
    assert Path("owned").exists()  # it would have been


def test_the_parts_of_objects_are_there_as_data():
    found = parse(pickle.dumps(collections.defaultdict(dict, {"a": 1}), 2))
    assert found.function == "collections.defaultdict"
    assert found.args == (Name("builtins", "dict"),)
    assert found.items == {"a": 1}
    array = parse(pickle.dumps(np.array(["x"], object), 2))
    assert array.function.endswith("multiarray._reconstruct")
    assert array.state[1] == (1,)
    assert array.state[4] == ["x"]


@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_noise_is_refused_or_read(data):
    with contextlib.suppress(ValueError):
        parse(data)


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_pickle_is_refused_or_read(data):
    whole = bytearray(pickle.dumps({"a": [np.arange(3), "text", 1.5, (None, {"b": True})]}, 2))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.integers(0, len(whole)))
    with contextlib.suppress(ValueError):
        parse(bytes(whole[:kept]))


def nested(depth):
    return b"\x80\x02" + b")" + b"\x85" * depth + b"."


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02" + b"X\xff\xff\xff\x7f",  # a text of 2 GB in 7 bytes
        b"\x80\x04" + b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x80\x02" + b")" + b"r\xff\xff\xff\x7f" + b"j\x00\x00\x00\x01.",  # a memo that is far away
        b"\x80\x02}K\x01a.",  # a dictionary is no list
        b"\x80\x02(K\x01K\x02K\x03d.",  # an operation that is not needed
        b"S'\\u'\n.",  # an escape that is none
        b"",
        b".",
    ],
)
def test_claims_are_not_believed(data):
    with pytest.raises(ValueError, match=r"pickle|expected|end|exhausted|opcode|bytes"):
        parse(data)


def test_deep_nesting_does_no_harm():
    assert parse(nested(100_000)) is not None
    assert parse(b"\x80\x02}" + nested(100_000)[2:-1] + b"K\x01s.") == {}  # its hash would recurse


def test_the_number_of_operations_is_bounded(monkeypatch):
    monkeypatch.setattr("scanpy_scvi.store.scvi_tools.pickled.MOST_OPERATIONS", 100)
    with pytest.raises(ValueError, match="more than 100 operations"):
        parse(pickle.dumps(list(range(200)), 2))
