"""Perturbations as observations of an AnnData of their own."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from ._perturbation_tables import OF_TARGETS, perturbation_fit


def perturbations(adata: ad.AnnData, key: str = "svae") -> ad.AnnData:
    """Return what a fit found of its perturbations, perturbations x latents.

    The form is that of pertpy's perturbation spaces, so that what works on these and on cells works here: distances,
    neighbours, clusters, heat maps.

    Parameters
    ----------
    adata
        Annotated data with a fit by :func:`scanpy_scvi.tl.svae`.
    key
        The ``key_added`` of the fit.

    Returns
    -------
    A new AnnData:

    ``X``
        Signed shift of the mean of z, in standard deviations of the prior; 0 where the gate is closed. float32.
    ``layers``
        ``shift`` as estimated, also where the gate is closed; its ``standard_error``; the ``probability`` of an open
        gate; ``evidence`` in nats; ``q_value``.
    ``obs``
        One row for each perturbation: ``n_cells``, ``n_targets``, ``effect``, ``response``, ``gain``.
    ``var``
        One row for each latent, with ``n_perturbations``, how many have it as a target.
    ``uns["control"]``, ``uns["perturbation_key"]``
        Names of the labels without perturbation, if there are any, and the column of cells that all names are from.

    Raises
    ------
    KeyError
        If there is no fit with perturbations under that key.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate_perturbations(n_perturbations=8, n_latent=3, cells_per_perturbation=30)
    >>> sv.tl.svae(adata, "perturbation", control="control", n_latent=3, max_epochs=5, progress=False)
    >>> space = sv.get.perturbations(adata)
    >>> space.shape, sorted(space.layers)
    ((8, 3), ['evidence', 'probability', 'q_value', 'shift', 'standard_error'])
    """
    fit = perturbation_fit(adata, key)
    effects = fit.effects.to_numpy(np.float32)
    var = pd.DataFrame({"n_perturbations": (effects != 0).sum(0)}, index=fit.latents)
    return ad.AnnData(
        effects,
        obs=fit.perturbations.set_axis(fit.names),
        var=var,
        layers={name: fit.wide(name).astype(np.float32) for name in OF_TARGETS},
        uns={"control": np.array(fit.control, object), "perturbation_key": fit.perturbation_key},
    )
