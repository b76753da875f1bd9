"""Files of arrays: what was written comes back or is refused, and a failure leaves the file before."""

import numpy as np
import pytest
from files import no_file_larger_than
from hypothesis import given, settings
from hypothesis import strategies as st

from scanpy_scvi.training.array_file import read_arrays, write_arrays

ARRAYS = {
    "weights.0": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "empty": np.empty(0, np.uint8),
    "text": np.array('{"a": [1.5, -Infinity]}'),
    "nan": np.array([np.nan, -0.0, 1e-320]),
}


def same(left, right):
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and left[name].tobytes() == right[name].tobytes() for name in left
    )


def test_arrays_come_back_bit_for_bit(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, ARRAYS)
    assert same(read_arrays(path), ARRAYS)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_numpy_reads_the_file_without_pickle(tmp_path):
    write_arrays(tmp_path / "a.npz", ARRAYS)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert same(dict(arrays), ARRAYS)


def test_objects_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        write_arrays(tmp_path / "a.npz", {"x": np.array([object()])})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "a.npz"
    write_arrays(path, ARRAYS)
    return path.read_bytes()


@settings(max_examples=60)
@given(data=st.data())
def test_any_change_is_seen(data, written, tmp_path_factory):
    path = tmp_path_factory.mktemp("changed") / "a.npz"
    place = data.draw(st.integers(0, len(written) - 1))
    if data.draw(st.booleans()):
        changed = written[:place]
    else:
        flipped = written[place] ^ data.draw(st.integers(1, 255))
        changed = written[:place] + bytes([flipped]) + written[place + 1 :]
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=r"a\.npz is cut short or damaged"):
        read_arrays(path)


def test_a_full_disk_leaves_the_file_before(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, ARRAYS)
    with no_file_larger_than(50_000), pytest.raises(OSError, match="large"):
        write_arrays(path, {"x": np.zeros(100_000)})
    assert same(read_arrays(path), ARRAYS)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
