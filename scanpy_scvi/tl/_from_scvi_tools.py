"""A model of scvi-tools, in place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _logging
from ..posterior import ExpressionRequest, LatentMoments, latent_moments
from ..posterior.depth import depth_of_states
from ..store.keys import Keys
from ..store.load import Fitted
from ..store.scale import PER_10K, SCALE, Scale, scale_name
from ..store.scvi_tools.read import Foreign, find_model, read_model
from ..store.write import check_free, model_entry
from ..training import FitResult, TrainingConfig
from ..training.config import default_max_epochs
from ..training.device import resolve_device
from ..training.history import ACTIVE_VARIANCE, Convergence, recent_gain
from ..training.threads import limited_to_useful
from ._assemble import check_choice
from ._fit import normalized_layer, write_fit
from ._presets import PRESETS

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData


def from_scvi_tools(
    adata: AnnData,
    path: str | PathLike[str],
    *,
    prefix: str = "",
    normalized: bool | Literal["auto"] = "auto",
    key_added: str = "scvi",
    device: str = "auto",
) -> None:
    """Take over a model of scvi-tools, without scvi-tools and without running anything in its file.

    The model becomes a fit like those of :func:`scvi`, so that every other function works on it. Genes and categories
    are matched by name; `adata` may have more genes, in any order. Latent space and expression are those that
    scvi-tools computes, to rounding.

    The pickle in the file is read as data: nothing that it names is imported or called.

    Parameters
    ----------
    adata
        The cells, with the counts and columns that the model was set up with. A view becomes an object of its own.
    path
        Folder that ``SCVI.save`` wrote, or its ``model.pt``.
    prefix
        The ``prefix`` that was passed to ``SCVI.save``.
    normalized
        Whether to write the normalized expression; ``"auto"`` unless it would take more than a quarter of the free
        memory.
    key_added
        Name of the results; another one renames all slots together.
    device
        Where to compute: ``"auto"`` (CUDA where there is one, else the CPU), or any device of torch.

    Returns
    -------
    `None`. Written are the slots of :func:`scvi`. In `uns["scvi"]` the verdict is ``"imported"``, and the history is
    what the file has of it. Batches weigh in the average of the normalized expression as they do in `adata`.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ValueError
        For a file that is damaged, or a model that cannot be expressed: another class than ``SCVI``,
        ``latent_distribution="ln"``, ``gene_likelihood="normal"``, a ``var_activation``, embedded batches, a
        ``size_factor_key``, batch and layer normalisation in one network. `adata` stays as it was.
    KeyError
        Where genes, columns or the layer of the model are missing.

    References
    ----------
    Gayoso, Lopez, Xing et al. 2022, Nat Biotechnol 40:163.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=2, progress=False)
    >>> folder = mkdtemp()
    >>> sv.tl.to_scvi_tools(adata, folder)  # or `SCVI.save` of scvi-tools
    >>> sv.tl.from_scvi_tools(adata, folder, key_added="theirs")
    >>> float(abs(adata.obsm["X_theirs"] - adata.obsm["X_scvi"]).max()) < 1e-4
    True
    """
    start = _logging.info("reading a model of scvi-tools")
    keys = Keys(key_added)
    check_choice(normalized, (True, False, "auto"), "normalized")
    torch_device = resolve_device(device)
    check_free(adata, keys)
    foreign = read_model(find_model(path, prefix))
    config = _config(len(foreign.history) or default_max_epochs(adata.n_obs, preset="scvi-tools"))
    fitted, params = _fitted(adata, foreign, keys, config)
    table = fitted.read(adata)
    weights = np.bincount(table.batch, minlength=fitted.spec.dims.n_batches) / table.n_cells
    categories = replace(fitted.categories, batch_weights=tuple(weights.tolist()))
    with limited_to_useful(config.batch_size, fitted.spec):
        latent = latent_moments(fitted.model, table, device=torch_device)
        layer, decision = normalized_layer(
            *(adata, fitted.model, table, fitted.gene_positions, ExpressionRequest(weights, PER_10K)),
            normalized=normalized,
            device=torch_device,
        )
    entry = model_entry(
        fitted.model.cpu(),
        fitted.spec,
        config,
        FitResult(foreign.history, _end(foreign, latent), np.zeros(0, np.int64)),
        params={**params, "normalized": decision},
        categories=categories,
        obs_names=adata.obs_names.to_numpy(),
        var_names=np.asarray(foreign.var_names),
        counts=table.counts,
        depth=depth_of_states(latent.mean, table.log_total),
    )
    entry[SCALE] = scale_name(Scale(PER_10K))
    written = write_fit(adata, keys, entry, fitted.model, latent, fitted.gene_positions, layer)
    _logging.closing_line(f"read a model of scvi-tools {foreign.setup.version}", added=written, time=start)


def _fitted(adata: AnnData, foreign: Foreign, keys: Keys, config: TrainingConfig) -> tuple[Fitted, dict[str, Any]]:
    """Match the model with the data, and give its options under the names of :func:`scvi`."""
    setup, spec = foreign.setup, foreign.spec
    network = spec.encoder.options
    params = {
        **setup.columns.__dict__,
        "layer": setup.layer,
        "likelihood": spec.likelihood.name,
        "dispersion": spec.likelihood.options.get("dispersion", "gene"),
        "library": spec.library.name,
        **{name: network[name] for name in ("n_latent", "n_hidden", "n_layers", "dropout_rate", "norm")},
        **{name: network[name] for name in ("inject_covariates", "encode_covariates")},
        "batch_size": config.batch_size,
        "key_added": keys.key_added,
        "imported_from": f"scvi-tools {setup.version}",
    }
    fitted = Fitted(
        model=foreign.model,
        spec=spec,
        keys=keys,
        params=params,
        columns=setup.columns,
        categories=setup.categories,
        gene_positions=np.empty(0, np.int64),
        var_names=foreign.var_names,
    )
    return fitted.on(adata), params


def _config(n_epochs: int) -> TrainingConfig:
    """Return the training settings of scvi-tools' `train()`, for what fits again like it."""
    fields = PRESETS["scvi-tools"]
    given = {name: fields[name] for name in TrainingConfig.__dataclass_fields__ if name in fields}
    return TrainingConfig(max_epochs=n_epochs, **given)


def _end(foreign: Foreign, latent: LatentMoments) -> Convergence:
    """What is known of how the fit ended; its last weights are those of the file."""
    last = foreign.history[-1] if foreign.history else None
    nan = float("nan")
    elbo = nan if last is None else last.train_elbo if np.isnan(last.validation_elbo) else last.validation_elbo
    course = f"after {last.epoch} epochs" if last else "without a history"
    return Convergence(
        verdict="imported",
        message=f"imported from scvi-tools {foreign.setup.version} {course}",
        best_epoch=last.epoch if last else 0,
        best_elbo=elbo,
        recent_gain=recent_gain(foreign.history) if len(foreign.history) > 1 else nan,
        kl=last.kl if last else nan,
        n_active=int((latent.mean.var(0) > ACTIVE_VARIANCE).sum()),
        n_restarts=0,
    )
