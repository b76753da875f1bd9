"""What every model function does around its model: read, fit, write."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from .. import _logging
from .._progress import ProgressLine, show_progress
from ..modules.spec import ModelSpec
from ..posterior import ExpressionRequest, LatentMoments, latent_moments, normalized_expression
from ..posterior.codes import clusters_of, hidden_codes
from ..posterior.components import components_at
from ..posterior.depth import depth_of_states
from ..store.identity import fit_identity
from ..store.keys import CODE_BATCH, CODES, Keys
from ..store.memory import LAYER_SHARE, available_memory
from ..store.preflight import quick_findings
from ..store.read import Data, read
from ..store.results import storable
from ..store.scale import PER_10K, SCALE, Scale, scale_name
from ..store.uns import to_uns
from ..store.write import (
    NO_EXTRAS,
    NOTHING,
    Beside,
    Extras,
    actualise,
    check_free,
    cluster_column,
    component_names,
    drop_extras,
    fill_layer,
    model_entry,
    rows_of_genes,
    write_components,
    write_extras,
    write_genes,
    write_latent,
    write_loadings,
)
from ..training import EpochRecord, FitResult, NonFiniteLoss, TrainingConfig, seeded
from ..training.checkpoint import Checkpoints
from ..training.choose import choose
from ..training.device import resolve_device
from ..training.ranks import NotFirst, current_ranks
from ..training.threads import limited_to_useful

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import anndata as ad

    from ..modules.vae import VAE
    from ..store.covariates import ColumnKeys
    from ..training.batches import CellTable
    from ..training.choose import Chosen


@dataclass(frozen=True)
class FitOptions:
    """Options that every model function has and that shape no model."""

    layer: str | None
    mask_var: np.ndarray | str | None
    normalized: bool | Literal["auto"]
    key_added: str
    on_interrupt: Literal["raise", "keep"]
    device: str
    progress: bool | None
    checkpoint: str | Path | None = None


class Outcome(NamedTuple):
    """A fit, before anything is written."""

    model: VAE
    spec: ModelSpec
    config: TrainingConfig
    result: FitResult
    latent: LatentMoments
    found: Mapping[str, Any]
    """What else is kept in `uns[key]`."""
    extras: Extras
    """What else is written."""


class Around(NamedTuple):
    """What a model does before and after its training, beyond what all do."""

    prepare: Callable[[VAE], None] | None = None
    """Give a new model what its specification does not hold."""
    finish: Callable[[VAE, CellTable, torch.device], Mapping[str, Any]] | None = None
    """Bring the fitted model into its final form; return what is to be kept of it in `uns[key]`."""
    denoised_to: float | None = PER_10K
    """Total that the denoised layer is scaled to; None for each cell's own library size."""
    annotate: Callable[[VAE, CellTable, LatentMoments, torch.device], Extras] | None = None
    """Return what else is to be written; rows of `var` and `varm` are the model's genes."""
    train: Callable[..., Chosen] | None = None
    """Fit the model in more than one stage: called with its specification, the data, the settings, and the options of
    :func:`.fit`."""
    beside: Beside = NOTHING
    """Names of all that it writes beyond what every model writes."""
    shaped_by: Mapping[str, Any] = MappingProxyType({})
    """Options that shape its training beyond the model and the settings, as JSON can hold them: a checkpoint is of
    them too."""


def fit_and_write(
    adata: ad.AnnData,
    name: str,
    columns: ColumnKeys,
    options: FitOptions,
    *,
    make_spec: Callable[[Data], ModelSpec | Sequence[ModelSpec]],
    make_config: Callable[[Data], TrainingConfig],
    params: Mapping[str, Any],
    around: Around = Around(),  # noqa: B008  # immutable
    new_layer: Callable[[str], Any] | None = None,
) -> Checkpoints | None:
    """Read `adata`, fit the model of `make_spec`, and write all results; nothing is written unless all succeed.

    `new_layer` makes room for a layer of a name elsewhere than in memory. Returns the states that the fit left, to be
    deleted when its results are safe.
    """
    start = _logging.info(f"fitting {name}")
    keys = Keys(options.key_added)
    device = resolve_device(options.device)
    check_free(adata, keys, columns.names(), around.beside)
    data = read(adata, columns, layer=options.layer, mask_var=options.mask_var)
    made, config = make_spec(data), make_config(data)
    specs = [made] if isinstance(made, ModelSpec) else list(made)
    for finding in quick_findings(adata, data, columns):
        if finding.level == "warning":
            _logging.warning(finding.message)
    checkpoints = _checkpoints(adata, data, specs, config, options, around.shaped_by)
    outcome = _fit(adata, data, specs, config, options, device, around, checkpoints)
    spec = outcome.spec
    positions = np.flatnonzero(data.gene_mask)
    weights = np.asarray(data.categories.batch_weights)
    with limited_to_useful(config.batch_size, spec):
        layer, decision = normalized_layer(
            adata,
            outcome.model,
            data.table,
            positions,
            ExpressionRequest(weights, around.denoised_to),
            normalized=options.normalized,
            device=device,
            new_layer=None if new_layer is None else partial(new_layer, keys.normalized),
        )

    entry = model_entry(
        outcome.model,
        spec,
        config,
        outcome.result,
        params={**params, "normalized": decision},
        categories=data.categories,
        obs_names=adata.obs_names.to_numpy(),
        var_names=adata.var_names[data.gene_mask].to_numpy(),
        counts=data.table.counts,
        depth=depth_of_states(outcome.latent.mean, data.table.log_total),
    )
    for slot, value in {SCALE: scale_name(Scale(around.denoised_to)), **outcome.found}.items():
        entry[slot] = storable(value, slot)
    written = write_fit(adata, keys, entry, outcome.model, outcome.latent, positions, layer, outcome.extras)
    verdict = outcome.result.convergence
    _logging.closing_line(f"{name}: {verdict.message}; ELBO {verdict.best_elbo:.1f}", added=written, time=start)
    return checkpoints


def _checkpoints(
    adata: ad.AnnData,
    data: Data,
    specs: Sequence[ModelSpec],
    config: TrainingConfig,
    options: FitOptions,
    shaped_by: Mapping[str, Any],
) -> Checkpoints | None:
    """Where states of the fit are left, if anywhere."""
    if options.checkpoint is None:
        return None
    identity = fit_identity(data, specs, config, adata.obs_names, adata.var_names[data.gene_mask])
    identity["call"] = dict(shaped_by)
    return Checkpoints(Path(options.checkpoint), identity, writes=current_ranks().rank == 0)


def _fit(
    adata: ad.AnnData,
    data: Data,
    specs: Sequence[ModelSpec],
    config: TrainingConfig,
    options: FitOptions,
    device: torch.device,
    around: Around,
    checkpoints: Checkpoints | None,
) -> Outcome:
    """Train and encode, with torch's random state lent for the duration."""
    with lent_to_training(config, device, progress=options.progress) as on_epoch:
        ranks = current_ranks()
        fitting = {"device": device, "on_epoch": on_epoch, "on_interrupt": options.on_interrupt, "ranks": ranks}
        fitting["checkpoints"] = checkpoints
        try:
            if around.train is None:
                chosen = choose(specs, data.table, config, prepare=around.prepare, **fitting)
            else:
                chosen = around.train(specs[0], data.table, config, **fitting)
        except NonFiniteLoss as error:
            raise FloatingPointError(_explain(error, adata, data, config)) from error
        if ranks.rank:
            raise NotFirst
        model = chosen.model
        with limited_to_useful(config.batch_size, chosen.spec):
            found = dict({} if around.finish is None else around.finish(model, data.table, device))
            latent = latent_moments(model, data.table, device=device)
            extras = Extras() if around.annotate is None else around.annotate(model, data.table, latent, device)
    if chosen.candidates is not None:
        found["candidates"] = chosen.candidates._asdict()
    return Outcome(model.cpu(), chosen.spec, config, chosen.result, latent, found, extras)


@contextmanager
def lent_to_training(
    config: TrainingConfig, device: torch.device, *, progress: bool | None
) -> Iterator[Callable[[EpochRecord], None]]:
    """Lend torch's random state and gradients to a fit; gives what shows the progress after an epoch."""
    with (
        seeded(config.random_state, device),
        torch.inference_mode(mode=False),  # whatever the caller computes in
        torch.enable_grad(),
        ProgressLine(config.max_epochs, enabled=show_progress(progress)) as line,
    ):

        def on_epoch(record: EpochRecord) -> None:
            held_out = None if np.isnan(record.validation_elbo) else record.validation_elbo
            line.update(record.epoch, record.train_elbo, held_out)

        yield on_epoch


def _explain(error: NonFiniteLoss, adata: ad.AnnData, data: Data, config: TrainingConfig) -> str:
    """Name cell, gene and batch of a non-finite loss."""
    culprit = error.culprit
    genes = adata.var_names[data.gene_mask]
    batch = data.categories.batch[culprit.batch]
    where = f"cell {adata.obs_names[culprit.cell]!r}" + (f" of batch {batch!r}" if batch else "")
    return (
        f"The loss became infinite or NaN ({culprit.term}) and stayed so after {config.max_restarts} restarts at lower "
        f"rates, first in {where}, whose largest count is in gene {genes[culprit.gene]!r}. Look at that cell with "
        "`scanpy_scvi.pp.check`, or lower `learning_rate`."
    )


def write_fit(
    adata: ad.AnnData,
    keys: Keys,
    entry: dict[str, Any],
    model: VAE,
    latent: LatentMoments,
    positions: np.ndarray,
    layer: Any,
    extras: Extras = NO_EXTRAS,
) -> list[str]:
    """Write all slots of a fit whose genes are the columns `positions` (-1: not there); name the main ones."""
    actualise(adata)
    drop_extras(adata, keys)
    extras = extras._replace(
        obs={**extras.obs, **_clusters(entry, model, latent, keys)},
        **{
            slot: {name: rows_of_genes(adata, positions, values) for name, values in getattr(extras, slot).items()}
            for slot in ("var", "varm")
        },
    )
    write_extras(adata, entry, extras)
    write_latent(adata, keys, *latent)
    components = components_at(model, latent.mean)
    write_components(adata, keys, None if components is None else components.responsibilities)
    if components is not None:
        names = component_names(len(components.weights))
        entry["components"] = to_uns({"names": names, **components.parameters()})
    present = positions >= 0
    log_theta = _shared_log_theta(model)
    write_genes(adata, keys, positions[present], None if log_theta is None else log_theta[:, present])
    loadings = model.decoder.loadings()
    write_loadings(adata, keys, positions[present], None if loadings is None else loadings.detach().cpu()[present])
    if layer is not None:
        adata.layers[keys.normalized] = layer
    elif keys.normalized in adata.layers:
        del adata.layers[keys.normalized]  # it belongs to an earlier fit
    adata.uns[keys.uns] = entry
    adata.uns.pop(keys.mapping, None)  # the cells are no longer in the space of a reference
    written = [f".obsm['{keys.latent}']", f".uns['{keys.uns}']"]
    written += [f".varm['{keys.loadings}']"] if loadings is not None else []
    written += [] if components is None else [f".obsm['{keys.responsibilities}']", f".obs['{keys.component}']"]
    written += [f".{slot}['{name}']" for slot, values in extras._asdict().items() for name in values]
    return written + ([f".layers['{keys.normalized}']"] if layer is not None else [])


def _clusters(entry: Mapping[str, Any], model: VAE, latent: LatentMoments, keys: Keys) -> dict[str, Any]:
    """Clusters of the cells, where the fit has codes of hidden units that make some."""
    if CODES not in entry:
        return {}
    codes = hidden_codes(model, latent.mean, batch=int(entry[CODE_BATCH]))
    return {keys.clusters: cluster_column(clusters_of(codes, entry[CODES]), len(entry[CODES]))}


def _shared_log_theta(model: VAE) -> torch.Tensor | None:
    """log theta, rows x genes, where it is a parameter and not a function of the cell."""
    dispersion = getattr(model.likelihood, "dispersion", None)
    return None if dispersion is None or dispersion.kind == "gene-cell" else dispersion.log_theta.detach().cpu()


def normalized_layer(
    adata: ad.AnnData,
    model: VAE,
    table: CellTable,
    positions: np.ndarray,
    request: ExpressionRequest,
    *,
    normalized: bool | Literal["auto"],
    device: torch.device,
    new_layer: Callable[[], Any] | None = None,
) -> tuple[Any, str]:
    """Return the layer, if it is to be written, and the decision in words; `new_layer` makes room outside memory."""
    size = 4 * adata.n_obs * adata.n_vars
    free = available_memory()
    if normalized == "auto":
        if not table.counts.in_memory:
            return None, "left out: the counts stay in a file, and the layer is larger; `normalized=True` writes it"
        if free is not None and size > LAYER_SHARE * free:
            return None, f"left out: {size / 1e9:.1f} GB is more than {LAYER_SHARE:.0%} of the free memory"
        decision = f"written: {size / 1e9:.3f} GB is at most {LAYER_SHARE:.0%} of the free memory"
    elif normalized:
        decision = "written, as asked for"
    else:
        return None, "left out, as asked for"
    layer = None if new_layer is None else new_layer()
    with closing(normalized_expression(model, table, request, genes=None, device=device)) as chunks:
        return fill_layer(adata, positions, chunks, layer), decision
