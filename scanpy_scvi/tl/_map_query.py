"""New cells, mapped into the latent space of a reference."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _logging
from ..posterior import ExpressionRequest, latent_moments, normalized_expression
from ..store.checks import listed
from ..store.course import read_course
from ..store.identity import data_entry, space_id
from ..store.load import Fitted, find_entry, load
from ..store.mapping import check_free_for_mapping, mapped_model, mapping_entry, stored_depth
from ..store.placing import write_places
from ..store.query import QueryGenes, grown_categories, match_genes, query_columns
from ..store.read import read_like
from ..store.reference import as_reference
from ..store.scale import stored_scale
from ..store.write import fill_layer
from ..training import TrainingConfig
from ..training.config import default_max_epochs
from ..training.device import resolve_device
from ..training.threads import limited_to_useful
from ._assemble import check_choice, check_training
from ._fit import write_fit
from ._mapping import MIN_NEW, grown_model, learn, newcomers, placed, scale_inputs
from ._place_cells import networks_for
from ._place_cells import placed as placed_on_map
from ._presets import recorded, resolve_options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    import torch
    from anndata import AnnData

    from ..store.covariates import ColumnKeys
    from ..training.batches import CellTable

FEW_GENES = 0.8
"""Share of the model's genes below which results are doubtful, as in scArches."""
UNSTORED = {"query", "reference", "device"}


def map_query(
    query: AnnData,
    reference: AnnData | str | PathLike[str],
    *,
    key: str = "scvi",
    batch_key: str | None = None,
    layer: str | None = None,
    gene_symbols: str | None = None,
    update_weights: bool = True,
    max_epochs: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 1e-2,
    validation_size: float = 0.1,
    early_stopping: bool = True,
    normalized: bool = False,
    random_state: int = 0,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Project new cells into the latent space of a fitted reference, in place on the query.

    Cells of batches that the reference knows are encoded, and that is all. For a new batch s the model gains a column
    :math:`v_s` wherever batches enter it, :math:`W h + V s + b \to W h + [V\, v_s]\, s + b`, and only these columns are
    fitted, to the cells of that batch (architecture surgery, as in scArches; of the encoder, those of its first layer).
    They start from how these cells differ from what the model expects of them in the average batch. Before that, depth
    is matched: the encoder reads :math:`\log(1 + c_s x)` with the :math:`c_s` that brings cells to the depth of those
    in the reference with their latent state, for else shallow cells pass for other ones. All other weights stay as
    they are, to the bit, and so does every result of the reference.

    Parameters
    ----------
    query
        Annotated counts of the new cells. Counts that lie in a file stay there, also while new columns are fitted to
        more of them than a buffer of 256 MB holds; then minibatches come in another order than in memory.
    reference
        Annotated data with a fit under `uns[key]`, or the path of such a file. It needs no counts, and is not changed.
    key
        Name of the fit, and of the results in the query.
    batch_key
        Column of `query.obs` with batches; that of the reference by default. A reference that was fitted without
        batches counts as one batch, `"reference"`.
    layer
        Layer of the query that holds the counts; `X` by default.
    gene_symbols
        Column of `query.var` to match genes by, in place of `var_names`. Of a name that occurs twice, the first is
        taken.
    update_weights
        Whether to fit the columns of new batches and of new categories of other covariates. Without, these stay at the
        mean of those that the reference has, in proportion to its cells, and only :math:`c_s` is found.
    max_epochs
        Most passes over the cells with new categories; by default from their number, as for a fit.
    batch_size
        Cells in a minibatch, at most.
    learning_rate
        Step size of Adam.
    validation_size
        Share of these cells held out to tell when to stop.
    early_stopping
        Whether to stop when the held-out bound is flat.
    normalized
        Whether to write the normalized expression too, averaged over the batches of the reference.
    random_state
        Seed.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.
    progress
        Whether to show a progress line; by default in a terminal or notebook unless scanpy's verbosity is 0.
    copy
        Whether to return a changed copy rather than to change `query`; not of counts that lie in a file.

    Returns
    -------
    `None`, or the changed copy. Written, with the default `key`:

    `obsm["X_scvi"]`, `obsm["scvi_latent_var"]`
        Posterior mean and variance of z, in the space of the reference.
    `var["scvi_modelled"]`, `var["scvi_dispersion"]` or `varm["scvi_dispersion"]`
        Genes that the model has, and their inverse dispersion.
    `uns["scvi"]`
        The model of the reference, with its new columns: every function that asks a fit works on the query.
    `uns["scvi_mapping"]`
        `params`; `reference_id`, the fingerprint of the reference's weights; `n_genes`, `n_genes_matched`,
        `share_matched`; `new_batches`; and where something was fitted its `training`, `history`, `convergence`.
    `obsm["X_umap"]`, `uns["umap_network"]`
        Where the reference has a network that places cells on its map (:func:`scanpy_scvi.tl.learn_embedding`): their
        places, and the network. A map of that name that the query has of its own is kept.
    `layers["scvi_normalized"]`
        With `normalized=True`, on the scale of the reference's; NaN for genes that the model does not have.

    Raises
    ------
    KeyError
        Where `reference` has no fit under `key`, or the query lacks a column that the fit used.
    ValueError
        Where hardly any gene of the model is in the query, a cell has no counts in them, or an option cannot be used.
        `query` stays as it was.

    Notes
    -----
    Cells of a fit without an encoder (:func:`scanpy_scvi.tl.dgd`) get their latent states by an optimisation, together
    with the columns of new batches.

    Genes of the model that the query lacks count as zero, as in scArches; a warning says how many. Columns of new
    batches learn that they are not seen there, those of known batches do not.

    To put both together, with a model that serves all cells::

        both = anndata.concat([reference, query], join="outer", fill_value=0)
        both.uns["scvi"] = query.uns["scvi"]

    References
    ----------
    Lotfollahi et al. 2022, Nat Biotechnol 40:121, doi:10.1038/s41587-021-01001-7.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=400, n_batches=3, density=0.3)
    >>> is_new = adata.obs["batch"] == "batch_2"
    >>> reference, query = adata[~is_new].copy(), adata[is_new].copy()
    >>> sv.tl.scvi(reference, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.tl.map_query(query, reference, max_epochs=2, progress=False)
    >>> query.obsm["X_scvi"].shape == (query.n_obs, 20), query.uns["scvi_mapping"]["new_batches"].tolist()
    (True, ['batch_2'])
    """
    given = resolve_options(map_query, locals())
    start = _logging.info("mapping cells to a reference")
    for option in ("update_weights", "normalized", "copy"):
        check_choice(given[option], (True, False), option)
    check_training(_config(given, 1))
    torch_device = resolve_device(device)
    source = as_reference(reference)
    _check_target(query, source, copy=copy)
    fitted, entry = load(source, key), find_entry(source, key)
    depth = stored_depth(entry, key, int(fitted.spec.encoder.options["n_latent"]))
    check_free_for_mapping(query, fitted.keys, entry)
    networks = networks_for(query, source, fitted.keys.latent)
    genes = match_genes(query, fitted.var_names, gene_symbols)
    columns = query_columns(query, fitted, batch_key)
    categories = grown_categories(query, columns, fitted.categories)
    table = read_like(query, columns, categories, genes.positions, layer)
    grown = grown_model(fitted, table, categories)
    rows = newcomers(table, fitted.spec.dims)
    _warn(genes, columns, table, rows, update_weights=update_weights)
    training = None
    if len(rows) >= MIN_NEW:
        config = _config(given, len(rows), read_course(entry, key).config.kl_weight)
        newly = table.subset(rows).near()
        n_known = fitted.spec.dims.n_batches
        grown = placed(grown, newly, torch_device)
        if depth is not None and grown.model.encoder.representations() is None:
            with limited_to_useful(config.batch_size, grown.spec):
                scale_inputs(grown, n_known, newly, depth, np.flatnonzero(genes.positions >= 0), torch_device)
        if update_weights:
            training = config, learn(grown, n_known, newly, config, torch_device, progress=progress)
    with limited_to_useful(int(fitted.params["batch_size"]), grown.spec):
        grown = placed(grown, table, torch_device)
    mapped = replace(
        fitted,
        model=grown.model,
        spec=grown.spec,
        columns=columns,
        categories=categories,
        gene_positions=genes.positions,
        var_names=genes.var_names,
        absent_genes=frozenset(genes.absent),
    )
    with limited_to_useful(int(fitted.params["batch_size"]), mapped.spec):  # as in the fit: the same bits
        latent = latent_moments(mapped.model, table, device=torch_device)
        expression = _expression(query, mapped, table, torch_device) if normalized else None
    mapped.model.cpu()
    maps = [(network, placed_on_map(network, latent.mean)) for network in networks]
    params = {k: v for k, v in recorded(map_query, given).items() if k not in UNSTORED}
    model = mapped_model(entry, mapped, layer, data_entry(table.counts, query.obs_names))
    mapping = mapping_entry(str(space_id(source, key)), params, fitted, mapped, training)
    target = query.copy() if copy else query
    written = write_fit(target, mapped.keys, model, mapped.model, latent, mapped.gene_positions, expression)
    target.uns[mapped.keys.mapping] = mapping
    written.append(f".uns['{mapped.keys.mapping}']")
    written += [slot for network, places in maps for slot in write_places(target, network, places)]
    ended = "" if training is None else f"; new columns {training[1].convergence.message}"
    _logging.closing_line(f"mapped {target.n_obs} cells{ended}", added=written, time=start)
    return target if copy else None


def _check_target(query: AnnData, source: AnnData, *, copy: bool) -> None:
    """Raise a ValueError where results would have no place to go."""
    if copy and query.isbacked:
        msg = (
            "`copy` is True, but the counts of `query` stay in its file. Leave it out: what is written goes to the "
            "object, and the file stays as it is."
        )
        raise ValueError(msg)
    if source is query and not copy:
        msg = "`query` and `reference` are the same object, whose fit would be lost. Pass new cells, or `copy=True`."
        raise ValueError(msg)


def _config(given: Mapping[str, Any], n_cells: int, kl_weight: float = 1.0) -> TrainingConfig:
    """How new columns are fitted; the weight of the KL is that of the reference's own fit."""
    fields = {name: given[name] for name in TrainingConfig.__dataclass_fields__ if name in given}
    epochs = given["max_epochs"]
    if epochs is None:
        epochs = default_max_epochs(n_cells, given["batch_size"])
    return TrainingConfig(
        **fields | {"max_epochs": epochs, "kl_weight": kl_weight, "start_from_data": False, "settle_dispersion": False}
    )


def _warn(genes: QueryGenes, columns: ColumnKeys, table: CellTable, rows: np.ndarray, *, update_weights: bool) -> None:
    """Say what makes the mapping less than it might be."""
    n, n_matched = len(genes.positions), genes.n_matched
    if n_matched < n:
        text = (
            f"{n_matched} of the model's {n} genes ({n_matched / n:.1%}) are in the query; the others count as zero "
            f"(first: {listed(genes.absent, most=3)})."
        )
        doubt = " Below 80 % cells may be misplaced: are the names those of the reference (`gene_symbols=`)?"
        _logging.warning(text + (doubt if n_matched < FEW_GENES * n else ""))
    if len(rows) and (not update_weights or len(rows) < MIN_NEW):
        few = len(rows) < MIN_NEW
        why = f"fewer than {MIN_NEW} cells have them" if few else "`update_weights=False`"
        _logging.warning(
            f"{len(rows)} of {table.n_cells} cells have a batch or category that the reference does not know "
            f"({listed(sorted(columns.names()), most=3)}). Nothing {'' if few else 'but its depth '}was learned about "
            f"it ({why}): such cells are placed as if they came from the average batch of the reference."
        )


def _expression(query: AnnData, mapped: Fitted, table: CellTable, device: torch.device) -> np.ndarray:
    """Normalized expression, averaged over the batches of the reference."""
    scale = stored_scale(mapped.entry, mapped.keys.key_added)
    weights = np.asarray(mapped.categories.batch_weights)
    request = ExpressionRequest(weights, scale.library_size, roots=scale.roots)
    genes = mapped.present
    chunks = normalized_expression(mapped.model, table, request, genes=genes, device=device)
    return fill_layer(query, mapped.gene_positions[genes], chunks)
