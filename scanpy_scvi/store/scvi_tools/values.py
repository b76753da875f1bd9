"""Arrays, text and numbers out of a parsed pickle; everything of another form is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .pickled import Call, Name, Stored

if TYPE_CHECKING:
    from collections.abc import Callable

MAPPINGS = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict")
ARRAY = re.compile(r"numpy\.(_core|core)\.multiarray\._reconstruct")
SCALAR = re.compile(r"numpy\.(_core|core)\.multiarray\.scalar")
TENSOR = re.compile(r"torch\._utils\._rebuild_tensor(_v2)?")
PARAMETER = re.compile(r"torch\._utils\._rebuild_parameter(_with_state)?")
DTYPE = re.compile(r"[biuf][1248]|U\d{1,6}|O8?")
STORAGES = {
    **{"FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BoolStorage": "b1"},
    **{"LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1"},
}
MOST_DIMENSIONS = 8


def as_mapping(value: Any, what: str) -> Mapping[str, Any]:
    """Return a dictionary, of whichever kind it was."""
    if isinstance(value, Call) and value.function in MAPPINGS:
        return value.items
    if isinstance(value, Mapping):
        return value
    raise ValueError(_unexpected(what, "a dictionary"))


def as_list(value: Any, what: str) -> list[Any]:
    """Return a sequence, or an array with one axis, as a list."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return list(value)
    return list(as_array(value, what).ravel().tolist())


def as_names(value: Any, what: str) -> tuple[str, ...]:
    """Text or numbers that name something, as text."""
    names = as_list(value, what)
    if not all(isinstance(name, (str, int, float, bool)) for name in names):
        raise ValueError(_unexpected(what, "names"))
    return tuple(str(name) for name in names)


def as_array(value: Any, what: str) -> np.ndarray:
    """A NumPy array of numbers or text, or of objects that are both."""
    if not (isinstance(value, Call) and ARRAY.fullmatch(value.function) and isinstance(value.state, tuple)):
        raise ValueError(_unexpected(what, "a NumPy array"))
    if len(value.state) != 5:
        raise ValueError(_unexpected(what, "a NumPy array"))
    _, shape, dtype, fortran, raw = value.state
    shape = _sizes(shape, what)
    order: Literal["C", "F"] = "F" if fortran is True else "C"
    kind = _dtype(dtype, what)
    if kind == "O":
        if not isinstance(raw, list) or len(raw) != math.prod(shape):
            raise ValueError(_unexpected(what, "a value for each place of the array"))
        array = np.empty(len(raw), object)
        for i, entry in enumerate(raw):
            array[i] = entry
        return array.reshape(shape, order=order)
    return _from_bytes(_as_bytes(raw, what), np.dtype(kind), shape, what, order=order)


def as_number(value: Any, what: str) -> float:
    """Return a number, NumPy's or Python's."""
    if isinstance(value, Call) and SCALAR.fullmatch(value.function) and len(value.args) == 2:
        value = _from_bytes(_as_bytes(value.args[1], what), np.dtype(_dtype(value.args[0], what)), (), what).item()
    if isinstance(value, (bool, int, float)):
        return float(value)
    raise ValueError(_unexpected(what, "a number"))


def as_weights(value: Any, what: str, read: Callable[[str], bytes], *, byte_order: str) -> np.ndarray:
    """A tensor; `read` gives the bytes of a storage by name. What it claims to be must lie in those bytes."""
    if isinstance(value, Call) and PARAMETER.fullmatch(value.function) and value.args:
        value = value.args[0]
    if not (isinstance(value, Call) and TENSOR.fullmatch(value.function) and len(value.args) >= 4):
        raise ValueError(_unexpected(what, "a tensor"))
    storage, offset, shape, stride = value.args[:4]
    shape, stride, (offset,) = _sizes(shape, what), _sizes(stride, what), _sizes((offset,), what)
    reference = storage.reference if isinstance(storage, Stored) else ()
    if not (isinstance(reference, tuple) and len(reference) == 5 and isinstance(reference[2], str)):
        raise ValueError(_unexpected(what, "a tensor in the file"))
    kind = STORAGES.get(reference[1].name if isinstance(reference[1], Name) else "")
    if kind is None:
        raise ValueError(_unexpected(what, "a tensor of numbers"))
    flat = np.frombuffer(memoryview(read(reference[2])), np.dtype(byte_order + kind))
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True)) if all(shape) else -1
    if len(shape) != len(stride) or last >= len(flat) or math.prod(shape) > len(flat):
        raise ValueError(_unexpected(what, "as many values as its shape says"))
    steps = tuple(step * flat.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False).astype(kind)


def _sizes(value: Any, what: str) -> tuple[int, ...]:
    """Sizes and steps: whole, not negative, not many."""
    if isinstance(value, Call) and value.function == "torch.Size" and len(value.args) == 1:
        (value,) = value.args
    good = isinstance(value, tuple) and len(value) <= MOST_DIMENSIONS
    if not good or not all(type(size) is int and 0 <= size < 2**48 for size in value):
        raise ValueError(_unexpected(what, "an array of few dimensions"))
    return tuple(value)


def _dtype(value: Any, what: str) -> str:
    """Byte order and kind of a NumPy dtype."""
    named = (
        isinstance(value, Call) and value.function == "numpy.dtype" and value.args and isinstance(value.args[0], str)
    )
    if not named or not DTYPE.fullmatch(value.args[0]):
        raise ValueError(_unexpected(what, "numbers or text"))
    kind = value.args[0]
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "="
    return "O" if kind[0] == "O" else f"{'>' if order == '>' else '<'}{kind}"


def _as_bytes(value: Any, what: str) -> bytes:
    """Bytes, which protocol 2 spells as the encoding of a text."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Call) and value.function == "builtins.bytes" and value.args == ():
        return b""
    if isinstance(value, Call) and value.function == "_codecs.encode" and value.args[1:] == ("latin1",):
        (text,) = value.args[:1]
        if isinstance(text, str):
            return text.encode("latin1")
    raise ValueError(_unexpected(what, "bytes"))


def _from_bytes(
    data: bytes, dtype: np.dtype, shape: tuple[int, ...], what: str, *, order: Literal["C", "F"] = "C"
) -> np.ndarray:
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(_unexpected(what, "as many values as its shape says"))
    if not len(data):
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _unexpected(what: str, expected: str) -> str:
    return f"{what} is not what was expected: {expected}"
