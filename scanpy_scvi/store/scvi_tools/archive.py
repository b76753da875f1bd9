"""The file `model.pt`: a zip archive with one pickle and the bytes of the tensors."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

from .pickled import parse
from .values import as_mapping, as_names, as_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

LARGEST_PICKLE = 2**28
"""Bytes of the pickle, which holds names and positions of cells beside the tensors."""
MOST_ENTRIES = 100_000


class Saved(NamedTuple):
    """What `scvi.model.SCVI.save` wrote."""

    state: dict[str, np.ndarray]
    """Weights under the names of scvi-tools."""
    var_names: tuple[str, ...]
    attributes: Mapping[str, Any]
    """Everything else, as :func:`.parse` leaves it."""


def read_saved(path: Path) -> Saved:
    """Read a `model.pt` as data: nothing in it is run, and it takes no more memory than a few times its size.

    Raises
    ------
    ValueError
        For anything that is not a model of scvi-tools.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path.stat().st_size)
    except zipfile.BadZipFile as error:
        msg = f"{path} is not a file of `torch.save` since torch 1.6, or it is damaged ({error})."
        raise ValueError(msg) from error
    except (ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        msg = f"{path} cannot be read as a model of scvi-tools: {error}."
        raise ValueError(msg) from error


def _read(archive: zipfile.ZipFile, n_bytes: int) -> Saved:
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        msg = "its entries are compressed, which `torch.save` never does"
        raise ValueError(msg)
    if len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries) > n_bytes:
        msg = "its entries claim to be larger than the file"
        raise ValueError(msg)
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1 or pickles[0].file_size > LARGEST_PICKLE:
        msg = f"it has {len(pickles)} pickles, but one of at most {LARGEST_PICKLE / 1e6:.0f} MB was expected"
        raise ValueError(msg)
    root = pickles[0].filename.removesuffix("data.pkl")
    sizes = {entry.filename: entry.file_size for entry in entries}
    names = set(sizes)
    big_endian = f"{root}byteorder" in names and archive.read(f"{root}byteorder") == b"big"

    def storage(key: str) -> bytes:
        if f"{root}data/{key}" not in names:
            msg = f"the tensor {key[:20]!r} is missing"
            raise ValueError(msg)
        return archive.read(f"{root}data/{key}")

    content = as_mapping(parse(archive.read(pickles[0])), "the content")
    lacking = {"model_state_dict", "var_names", "attr_dict"} - set(content)
    if lacking:
        msg = f"it lacks {', '.join(sorted(lacking))}"
        raise ValueError(msg)
    state, read_so_far = {}, 0
    for name, value in as_mapping(content["model_state_dict"], "the state").items():
        if name == "pyro_param_store":
            continue
        label = f"the tensor {name[:80]!r}"
        state[name] = as_weights(value, label, storage, byte_order=">" if big_endian else "<")
        read_so_far += state[name].nbytes
        if read_so_far > n_bytes:
            msg = "its tensors claim to be larger than the file"
            raise ValueError(msg)
    return Saved(state, as_names(content["var_names"], "var_names"), as_mapping(content["attr_dict"], "attr_dict"))
