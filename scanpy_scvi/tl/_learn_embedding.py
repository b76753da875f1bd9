"""A network that places cells on a map that exists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _logging
from ..modules.map_network import MapNetwork
from ..store.checks import MIN_CELLS
from ..store.map_network import FIELDS, basis_name, network_entry, network_key, read_rows, rep_id
from ..store.results import check_slot
from ..store.write import actualise
from ..training.config import TrainingConfig, default_max_epochs
from ..training.device import resolve_device
from ..training.fit_map import fit_map
from ..training.random import seeded
from ._assemble import check_number
from ._presets import recorded, resolve_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

UNSTORED = {"key_added", "device"}
PATIENCE, LEAST_GAIN = 150, 1e-2
"""Steps without a gain of this share that end the fit; waiting on brings cells a twentieth nearer, in thrice the time.
"""


def learn_embedding(
    adata: AnnData,
    basis: str = "X_umap",
    *,
    use_rep: str = "X_scvi",
    n_hidden: int = 128,
    n_layers: int = 3,
    max_epochs: int | None = None,
    validation_size: float = 0.1,
    key_added: str | None = None,
    random_state: int = 0,
    device: str = "auto",
) -> None:
    r"""Fit a small network to a map that exists, so that new cells can be placed on it.

    The map may be a UMAP, a t-SNE, a diffusion map or any other, of two dimensions or more; it is not changed. The
    network f takes the representation :math:`x_n` of a cell, from which the map was made, to its place :math:`y_n`:

    .. math::

        f(x) = m + s\,(A h_L + a), \qquad h_l = \mathrm{relu}(\mathrm{norm}(W_l h_{l-1} + b_l)), \qquad
        h_0 = (x - \mu) / \sigma, \qquad \min_f \sum_n \lVert f(x_n) - y_n \rVert,

    with the means :math:`\mu, m` and the overall scales :math:`\sigma, s` of the cells. The distance itself is made
    small rather than its square: where the representation cannot tell whether a cell belongs to one group or another,
    the least sum of squares lies between them, where no cell is, and the least distance in the larger one. Training
    ends when held-out cells come no nearer to where they are.

    Then :func:`scanpy_scvi.tl.map_query` places the cells that it maps on this map, too, and
    :func:`scanpy_scvi.tl.place_cells` any that have the same representation. For millions of cells, make the map of a
    sample of them and place the others.

    Parameters
    ----------
    adata
        Annotated data with a map.
    basis
        The map, a key of `obsm`, with its `X_` or without.
    use_rep
        What the network reads, a key of `obsm`: best what the map was computed from.
    n_hidden
        Width of the hidden layers.
    n_layers
        Number of hidden layers, L.
    max_epochs
        Most passes over the cells; by default from their number, as for a fit.
    validation_size
        Share of cells held out to tell when to stop, and how far from their places cells come to lie. With 0 all
        epochs are run.
    key_added
        Key of the network in `uns`; for `"X_umap"` it is `"umap_network"` by default.
    random_state
        Seed.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.

    Returns
    -------
    `None`. Written:

    `uns["umap_network"]`
        `basis`, `use_rep`, `n_hidden`, `n_layers`, `n_dims`; `state`, the weights as plain arrays; `reference_id`, the
        fingerprint of the space of `use_rep`, where it is that of a fit or of `sc.pp.pca`; `error`, of held-out cells:
        `median` and `mean` distance from their places in units of the map, its `spread` (root mean square distance from
        its centre) and `relative`, median by spread; `history`, `best_epoch`, `validation_names`, `params`, `versions`.

    Raises
    ------
    KeyError
        Where there is no such map or representation.
    ValueError
        Where either has NaN, there are too few cells, or an option cannot be used. `adata` stays as it was.

    Notes
    -----
    A network answers for every cell. One of a kind that the map does not have is placed somewhere among those that it
    has: the distance that :func:`scanpy_scvi.tl.transfer_labels` writes tells. Cells between two groups come to lie
    anywhere on the way between them, in the empty part of the map. :doc:`/mapping` compares placing with
    `sc.tl.ingest`.

    References
    ----------
    Cho et al. 2018, Cell Systems 7:185, doi:10.1016/j.cels.2018.05.017, who fit a network to a t-SNE map of a sample of
    cells and place the rest with it. The loss, the layer norm and the stopping rule are this package's own.

    Examples
    --------
    >>> import scanpy as sc, scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=400, n_batches=3, density=0.3)
    >>> is_new = adata.obs["batch"] == "batch_2"
    >>> reference, query = adata[~is_new].copy(), adata[is_new].copy()
    >>> sv.tl.scvi(reference, batch_key="batch", max_epochs=5, progress=False)
    >>> reference.obsm["X_map"] = reference.obsm["X_scvi"][:, :2]  # say, of `sc.tl.umap`
    >>> sv.tl.learn_embedding(reference, "X_map", max_epochs=10)
    >>> sv.tl.map_query(query, reference, max_epochs=2, progress=False)
    >>> query.obsm["X_map"].shape == (query.n_obs, 2)
    True
    """
    given = resolve_options(learn_embedding, locals())
    start = _logging.info("learning a map")
    config = _config(given, adata.n_obs)
    torch_device = resolve_device(device)
    name = basis_name(adata, basis)
    slot = network_key(name) if key_added is None else key_added
    check_slot(adata, slot, FIELDS, found="holds no network that places cells")
    y, x = read_rows(adata, name, "basis"), read_rows(adata, use_rep, "use_rep")
    if adata.n_obs < MIN_CELLS:
        msg = f"`adata` has {adata.n_obs} cells, but at least {MIN_CELLS} were expected to learn a map from."
        raise ValueError(msg)
    sizes = {"n_hidden": int(n_hidden), "n_layers": int(n_layers)}
    with seeded(config.random_state):
        network = MapNetwork(x.shape[1], y.shape[1], **sizes)
    fit = fit_map(network, x, y, config, torch_device)
    network.cpu()
    held_out = fit.validation_rows
    errors = np.linalg.norm(network.place(x[held_out]) - y[held_out], axis=1)
    params = {k: v for k, v in recorded(learn_embedding, given).items() if k not in UNSTORED}
    params |= {"basis": name, **sizes}
    entry = network_entry(network, fit, errors, adata.obs_names.to_numpy(), params, rep_id(adata, use_rep))
    actualise(adata)
    adata.uns[slot] = entry
    far = (
        f"; held-out cells lie {entry['error']['relative']:.1%} of its spread from their places" if len(errors) else ""
    )
    _logging.closing_line(f"learned the map {name!r}{far}", added=[f".uns[{slot!r}]"], time=start)


def _config(given: Mapping[str, Any], n_cells: int) -> TrainingConfig:
    """How the network is fitted, options checked."""
    check_number(given["n_hidden"], 1, 2**12, "n_hidden", whole=True)
    check_number(given["n_layers"], 1, 2**5, "n_layers", whole=True)
    check_number(given["validation_size"], 0, 0.9, "validation_size")
    check_number(given["random_state"], 0, 2**63 - 1, "random_state", whole=True)
    epochs = given["max_epochs"]
    if epochs is not None:
        check_number(epochs, 1, np.inf, "max_epochs", whole=True)
    return TrainingConfig(
        max_epochs=default_max_epochs(max(n_cells, 1)) if epochs is None else int(epochs),
        adam_eps=1e-8,  # without damping: unlike the counts' gradients, those of distances are all of one size
        validation_size=given["validation_size"],
        early_stopping=given["validation_size"] > 0,
        patience_steps=PATIENCE,
        min_improvement=LEAST_GAIN,
        random_state=int(given["random_state"]),
    )
