"""How deep cells of a latent state are in a reference, and how much shallower those of a new batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..numerics.least_squares import least_squares, parts_of_rows
from ..training.batches import minibatches

if TYPE_CHECKING:
    from ..modules.vae import VAE
    from ..training.batches import CellTable

ROUNDS = 4
"""Times that the scale follows from the latent states and these from the scale; more change little."""
MOST = np.log(20.0)
"""Largest log scale, either way."""
MOST_CELLS = 1024
"""Cells of a batch by which it is chosen."""
CHUNK = 256


def depth_of_states(z: np.ndarray, log_total: np.ndarray) -> np.ndarray:
    r"""Least squares of :math:`\log \ell_n \approx a + b^\top z_n` over the cells of a fit; (a, b), float64."""
    parts = parts_of_rows(len(z))
    return least_squares((np.insert(z[part].astype(np.float64), 0, 1, axis=1), log_total[part]) for part in parts)


@torch.no_grad()
def match_depth(
    model: VAE, table: CellTable, batch: int, depth: np.ndarray, *, present: np.ndarray, device: torch.device
) -> None:
    r"""Choose the factor c of the encoder's input log(1 + c x) for a new batch: as deep as such cells of the reference.

    log c is the mean over cells of :math:`a + b^\top z_n - \log \ell_n`, with z from that c. It compares cells with
    their like, so a query of large cells is not taken for a deep one. Of genes that the query lacks the reference's
    depth is taken off.

    Parameters
    ----------
    model
        The model, in evaluation mode.
    table
        Cells of the new batch.
    batch
        Its code.
    depth
        What :func:`depth_of_states` returned for the reference.
    present
        Positions of the genes that the query has.
    device
        Where to compute.
    """
    rows = np.unique(np.linspace(0, table.n_cells - 1, MOST_CELLS).astype(np.int64))
    parts = [table.take(part).to(device) for part in minibatches(rows, CHUNK)]
    a, b = float(depth[0]), torch.from_numpy(depth[1:]).to(device)
    chosen = torch.from_numpy(present).to(device)
    log_scale = 0.0
    for _ in range(ROUNDS):
        model.encoder.set_log_input_scale(batch, log_scale)
        missing = 0.0
        for cells in parts:
            z = model.encode(cells).mean
            expected = a + z.double() @ b
            if len(present) < table.n_genes:
                shares = model.likelihood.expected_shares(model.decode(z, cells)).double()
                expected += (shares[:, chosen].sum(1) / shares.sum(1)).log()
            missing += float((expected - cells.log_total.double()).sum())
        log_scale = float(np.clip(missing / len(rows), -MOST, MOST))
    model.encoder.set_log_input_scale(batch, log_scale)
