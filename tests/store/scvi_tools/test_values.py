"""Arrays out of a parsed pickle."""

import pickle
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scanpy_scvi.store.scvi_tools.pickled import Call, Name, Stored, parse
from scanpy_scvi.store.scvi_tools.values import as_array, as_list, as_mapping, as_names, as_number, as_weights

dtypes = (
    hnp.integer_dtypes(endianness="?") | hnp.floating_dtypes(endianness="?", sizes=(32, 64)) | st.just(np.dtype(bool))
)


def parsed(value, protocol=2):
    return parse(pickle.dumps(value, protocol))


@given(
    hnp.arrays(dtypes | hnp.unicode_string_dtypes(max_len=5), hnp.array_shapes(min_dims=0, min_side=0)), st.booleans()
)
def test_arrays_are_what_numpy_reads(array, fortran):
    array = np.asfortranarray(array) if fortran else array
    found = as_array(parsed(array), "it")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@given(st.lists(st.text()))
def test_names(texts):
    array = np.empty(len(texts), object)
    array[:] = texts
    assert as_names(parsed(array), "it") == tuple(texts)
    assert as_names(parsed(texts), "it") == tuple(texts)


def test_names_of_numbers_and_none():
    assert as_names(parsed(np.array([1, 20])), "it") == ("1", "20")
    assert as_names(parsed(np.array([0.5, 1.0])), "it") == ("0.5", "1.0")
    assert as_names(parsed(np.array([True, False])), "it") == ("True", "False")
    assert as_names(None, "it") == ()
    assert as_list(parsed((1, 2)), "it") == [1, 2]
    with pytest.raises(ValueError, match="it is not what was expected: names"):
        as_names([["nested"]], "it")


@pytest.mark.parametrize("number", [1.5, 3, True, np.float32(0.25), np.int64(7)])
def test_numbers(number):
    assert as_number(parsed(number), "it") == float(number)


@pytest.mark.parametrize("make", [dict, OrderedDict, lambda items: defaultdict(dict, items)])
def test_mappings(make):
    assert as_mapping(parsed(make({"a": 1, "b": 2})), "it") == {"a": 1, "b": 2}


def array_call(shape=(2,), dtype="f4", raw=b"\0" * 8, order="<"):
    """What is left of a pickled array, with one thing changed."""
    kind = Call("numpy.dtype", (dtype, False, True), state=(3, order, None, None, None, -1, -1, 0))
    args = (Name("numpy", "ndarray"), (0,), b"b")
    return Call("numpy._core.multiarray._reconstruct", args, state=(1, shape, kind, False, raw))


def test_the_array_that_is_changed_below_is_sound():
    np.testing.assert_array_equal(as_array(array_call(), "it"), [0, 0])


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (10**9, 10**9)},
        {"shape": (3,)},
        {"shape": (-2,)},
        {"shape": (True, 2)},
        {"shape": [2]},
        {"shape": (1,) * 40},
        {"dtype": "V8"},
        {"dtype": "M8"},
        {"dtype": "O"},
        {"dtype": "f4,f4"},
        {"dtype": b"f4"},
        {"raw": "text"},
        {"raw": [1.0, 2.0]},
    ],
    ids=str,
)
def test_false_arrays(change):
    with pytest.raises(ValueError, match="it is not what was expected"):
        as_array(array_call(**change), "it")


def tensor_call(shape=(2, 3), stride=(3, 1), offset=0, storage="FloatStorage", key="0"):
    reference = ("storage", Name("torch", storage), key, "cpu", 6)
    return Call("torch._utils._rebuild_tensor_v2", (Stored(reference), offset, shape, stride, False, None))


def weights(call, data=np.arange(6, dtype="<f4").tobytes()):  # noqa: B008
    return as_weights(call, "it", lambda _: data, byte_order="<")


def test_tensors():
    np.testing.assert_array_equal(weights(tensor_call()), np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(weights(tensor_call((3, 2), (1, 3))), np.arange(6).reshape(2, 3).T)
    np.testing.assert_array_equal(weights(tensor_call((), (), 4)), 4)
    parameter = Call("torch._utils._rebuild_parameter", (tensor_call((2,), (1,)), True, None))
    np.testing.assert_array_equal(weights(parameter), [0, 1])
    big = as_weights(tensor_call(), "it", lambda _: np.arange(6, dtype=">f4").tobytes(), byte_order=">")
    np.testing.assert_array_equal(big, np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (3, 3)},
        {"shape": (10**12, 3), "stride": (0, 0)},
        {"stride": (-3, 1)},
        {"stride": (300, 1)},
        {"stride": (3,)},
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**60},
        {"storage": "DoubleStorage", "shape": (6,), "stride": (1,)},
        {"storage": "UntypedStorage"},
        {"key": 0},
    ],
    ids=str,
)
def test_false_tensors(change):
    with pytest.raises(ValueError, match=r"it is not what was expected|argument"):
        weights(tensor_call(**change))
