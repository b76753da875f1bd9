"""A model of scvi-tools -> a model of our parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ...training.random import seeded
from ..checks import listed
from .archive import read_saved
from .history import read_history
from .names import our_names, shapes
from .options import model_spec, read_options
from .registry import Setup, read_setup

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from ...modules.spec import ModelSpec
    from ...modules.vae import VAE
    from ...training.history import EpochRecord

MODEL_FILE = "model.pt"


class Foreign(NamedTuple):
    """A model of scvi-tools as one of ours."""

    model: VAE
    spec: ModelSpec
    setup: Setup
    var_names: tuple[str, ...]
    history: list[EpochRecord]


def find_model(path: str | PathLike[str], prefix: str) -> Path:
    """Return the file itself, or the one in a folder."""
    found = Path(path)
    if found.is_dir():
        found = found / f"{prefix}{MODEL_FILE}"
    if not found.is_file():
        msg = (
            f"There is no file {found}. Pass the folder that `SCVI.save` wrote (and its `prefix`), or its {MODEL_FILE}."
        )
        raise FileNotFoundError(msg)
    return found


def read_model(file: Path) -> Foreign:
    """Read a file of `scvi.model.SCVI.save`; nothing in it is run.

    Raises
    ------
    ValueError
        For a file that is damaged or claims what it does not hold, and for a model that our parts cannot express.
    """
    saved = read_saved(file)
    try:
        options = read_options(saved.attributes.get("init_params_"))
        setup = read_setup(saved.attributes.get("registry_"))
        dims = setup.dims(len(saved.var_names))
        if options.n_layers > len(saved.state):
            msg = f"it claims {options.n_layers} layers, but holds {len(saved.state)} tensors"
            raise ValueError(msg)
        _check_names(saved.var_names)
        _check_weights(saved.state, shapes(options, dims))
    except ValueError as error:
        msg = f"{file} cannot be read: {error}."
        raise ValueError(msg) from error
    theirs = {name: torch.from_numpy(array) for name, array in saved.state.items()}
    latent = [theirs[name].ravel().tolist() for name in ("library_log_means", "library_log_vars") if name in theirs]
    spec = model_spec(options, dims, *latent)
    with seeded(0):
        model = spec.build().float()
    model.load_state_dict(our_names(theirs, options, dims))  # strict: every weight of ours is set
    return Foreign(model.eval(), spec, setup, saved.var_names, read_history(saved.attributes.get("history_")))


def _check_names(var_names: tuple[str, ...]) -> None:
    if not var_names or len(set(var_names)) < len(var_names):
        msg = "the names of its genes are not different from each other, but genes are matched by name"
        raise ValueError(msg)


def _check_weights(state: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise a ValueError unless the file holds what its options ask for, all of it finite."""
    if set(state) != set(expected):
        msg = f"its tensors are not those of its options: {listed(sorted(set(state) ^ set(expected)), most=4)}"
        raise ValueError(msg)
    for name, shape in expected.items():
        array = state[name]
        if array.shape != shape:
            msg = f"its tensor {name!r} has shape {array.shape}, but its options ask for {shape}"
            raise ValueError(msg)
        if not np.isfinite(array).all():
            msg = f"its tensor {name!r} has NaN or infinite values"
            raise ValueError(msg)
        least = 1e-12 if name == "library_log_vars" else 0.0
        if name.endswith(("running_var", "library_log_vars")) and (array < least).any():
            msg = f"its tensor {name!r} has variances that are not positive"
            raise ValueError(msg)
