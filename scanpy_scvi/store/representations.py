"""Latent states that belong to cells rather than to the weights: those of models without an encoder.

They lie in `obsm` alone, so that they go with the cells when an AnnData is subset or reordered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from .. import _logging
from ..modules.vae import VAE
from ..training.represent import represent
from ..training.threads import limited_to_useful
from .keys import Keys
from .latent import stored_latent
from .typed import at

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anndata as ad

    from ..modules.penalties.base import Penalty
    from ..modules.spec import ModelSpec
    from ..training.batches import CellTable


def without_representations(model: VAE) -> dict[str, torch.Tensor]:
    """Weights of a model by name, without the cells' own latent states."""
    table = model.encoder.representations()
    names = {name for name, parameter in model.named_parameters() if parameter is table}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in names}


def with_representations(model: VAE, z: torch.Tensor) -> VAE:
    """The same model, sharing its weights, with other cells' latent states `z`, (n_cells, n_latent)."""
    encoder = model.encoder.with_representations(z)
    penalties = cast("list[Penalty]", list(model.penalties))
    return VAE(encoder, model.library, model.decoder, model.likelihood, model.prior, penalties)


def stored_representations(adata: ad.AnnData, key: str, n_latent: int) -> np.ndarray | None:
    """Latent states that lie in `obsm["X_<key>"]`, checked; None where there are none."""
    slot = Keys(key).latent
    if slot not in adata.obsm:
        return None
    z = stored_latent(adata, key)
    if z.shape[1] != n_latent:
        msg = (
            f"`{at('adata.obsm', slot)}` has {z.shape[1]} columns, but the fit has no encoder and reads {n_latent} "
            "numbers for each cell from there. Delete it, and they are found anew."
        )
        raise ValueError(msg)
    return z.astype(np.float32)


def find_representations(model: VAE, spec: ModelSpec, cells: CellTable, params: Mapping[str, Any]) -> np.ndarray:
    """Latent states of cells by optimisation, on the CPU, (n_cells, n_latent)."""
    _logging.info(f"finding latent states of {cells.n_cells:,} cells by optimisation: the fit has no encoder")
    with limited_to_useful(int(params["batch_size"]), spec):
        return represent(model, cells, np.arange(cells.n_cells), device=torch.device("cpu")).numpy()
