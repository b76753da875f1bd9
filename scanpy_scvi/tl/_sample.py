"""Counts drawn from a fitted model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import anndata as ad
import numpy as np
import pandas as pd

from .. import _logging
from ..posterior.generation import Generated, LatentCells, draw_counts, draw_latent, new_cells
from ..store.checks import listed
from ..store.covariates import group_names
from ..store.load import Fitted, load
from ..store.uns import to_uns
from ..training.device import resolve_device
from ..training.random import torch_seed
from ..training.threads import limited_to_useful
from ._assemble import check_choice, check_number
from ._presets import recorded, resolve_options

if TYPE_CHECKING:
    from collections.abc import Sequence

SUFFIX = "_sample"


def sample(
    adata: ad.AnnData,
    n_cells: int | None = None,
    *,
    groupby: str | None = None,
    proportions: Mapping[str, float] | None = None,
    library: Literal["joint", "observed"] | float = "joint",
    key: str = "scvi",
    random_state: int = 0,
    device: str = "auto",
) -> ad.AnnData:
    r"""Draw counts from a fitted model: of the cells there are, or of new ones.

    Without `n_cells`, every cell is drawn once more (posterior predictive counts), in its own batch:

    .. math:: z_n \sim q(z \mid x_n), \qquad \tilde x_{ng} \sim p(x_g \mid z_n, \ell_n, s_n)

    With `n_cells`, new cells are drawn. Their latent states do not come from the prior N(0, I), which the states of
    real cells fill unevenly, but from a density fitted afterwards (Ghosh et al. 2020) to the joint of latent state and
    library size,

    .. math:: (z, \log \ell) \sim \sum_k \pi_k\, N(m_k, S_k), \qquad \tilde x_g \sim p(x_g \mid z, \ell, s)

    one for each group of `groupby`. It is fitted to one posterior draw of each cell. Of 1, 2, 4, …, 64 components, with
    and without covariances, it has those under which a fifth of the cells, set aside, are most probable. Latent
    dimensions that the model does not use (Burda et al. 2016: the variance of the posterior mean is below 0.01, or
    below that share of the largest where there is no prior) are drawn by themselves. Each new cell has the covariates s
    of a cell drawn from the same component, so that batches occur as observed among cells of its kind.

    A cell that comes out without any count is drawn again. New cells are at best as good as posterior predictive ones.

    Parameters
    ----------
    adata
        Annotated counts with a fit under `uns[key]`.
    n_cells
        Number of new cells; by default the cells of `adata` are drawn once more.
    groupby
        Column of `obs` with groups, such as cell types, to fit one density each. Cells without a group are left out.
    proportions
        Share of each group among the new cells, of any sum; by default as observed. Groups not named get none.
    library
        `"joint"` draws library sizes along with the latent states; `"observed"` takes those of cells drawn from the
        same group, whatever their state; a number is the expected total count of every cell.
    key
        Name of the fit.
    random_state
        Seed of the density and of all draws.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.

    Returns
    -------
    A new AnnData with the modelled genes; `adata` stays as it is.

    `X`
        Counts, CSR, float32.
    `obs["generated"]`
        `True`, which tells them apart after `anndata.concat`.
    `obs`
        Group, and batch and other covariates of the model as they were used.
    `obs["scvi_library"]`
        Library size used.
    `obsm["X_scvi"]`
        Latent state used.
    `uns["scvi_sample"]`
        `params`, and for new cells the number of components of each group's density.

    Raises
    ------
    KeyError
        Where there is no fit under `key`, or no such column or group.
    ValueError
        Where an option cannot be used.

    References
    ----------
    Ghosh et al. 2020, arXiv 1903.12436. Burda et al. 2016, arXiv 1509.00519.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=2, progress=False)
    >>> new = sv.tl.sample(adata, 100, groupby="cell_type", proportions={"A549": 3, "H838": 1})
    >>> new.obs["cell_type"].value_counts()[["A549", "H838"]].to_list()
    [75, 25]
    """
    given = resolve_options(sample, locals())
    start = _logging.info("drawing counts")
    _check(given)
    fitted = load(adata, key, counts=False)
    codes, names = _groups(adata, groupby)
    wanted = None if n_cells is None else _numbers(codes, names, int(n_cells), groupby, proportions)
    table, torch_device = fitted.read(adata), resolve_device(device)
    seeds = np.random.SeedSequence(random_state).spawn(2)
    with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):
        latent, use = draw_latent(fitted.model, table, random_state=int(random_state), device=torch_device)
        drawn = Generated(latent, {})
        if wanted is not None:
            drawn = new_cells(latent, use, codes, wanted, np.random.default_rng(seeds[1]))
        cells = _with_library(drawn.cells, latent, codes, library, np.random.default_rng(seeds[1].spawn(1)[0]))
        counts = draw_counts(fitted.model, table, cells, random_state=torch_seed(seeds[0]), device=torch_device)
    params = {k: v for k, v in recorded(sample, given).items() if k not in {"device", "proportions"}}
    obs = _obs(adata, fitted, cells, new=wanted is not None)
    if groupby is not None:
        obs[groupby] = pd.Categorical.from_codes(codes[cells.donors], names)
    generated = ad.AnnData(
        counts if len(fitted.present) == counts.shape[1] else counts[:, fitted.present],
        obs=obs,
        var=adata.var.iloc[fitted.gene_positions[fitted.present]].copy(),
        obsm={fitted.keys.latent: cells.z},
        uns={f"{key}{SUFFIX}": to_uns({"params": params, **_described(drawn, names)})},
    )
    _logging.closing_line(f"drew {generated.n_obs} cells of {generated.n_vars} genes", time=start)
    return generated


def _check(given: Mapping[str, Any]) -> None:
    """Raise an error for an option that cannot be used."""
    if given["n_cells"] is not None:
        check_number(given["n_cells"], 1, 10**9, "n_cells", whole=True)
    check_number(given["random_state"], 0, 2**63 - 1, "random_state", whole=True)
    library, proportions = given["library"], given["proportions"]
    if isinstance(library, str):
        check_choice(library, ("joint", "observed"), "library")
    else:
        check_number(library, 1e-12, np.inf, "library")
    if proportions is None:
        return
    if not isinstance(proportions, Mapping):
        msg = f"`proportions` is {proportions!r}, but a mapping of groups to shares was expected."
        raise TypeError(msg)
    if given["groupby"] is None or given["n_cells"] is None:
        msg = "`proportions` says how many new cells each group gets. Pass `n_cells` and `groupby` along with it."
        raise ValueError(msg)
    for name, share in proportions.items():
        check_number(share, 0, np.inf, f"proportions[{name!r}]")
    if not sum(proportions.values()) > 0:
        msg = f"`proportions` is {dict(proportions)!r}, but at least one positive share was expected."
        raise ValueError(msg)


def _groups(adata: ad.AnnData, groupby: str | None) -> tuple[np.ndarray, list[str]]:
    """Group of each cell, -1 for none, and the names of groups; without a column, one group."""
    if groupby is None:
        return np.zeros(adata.n_obs, np.int64), [""]
    return group_names(adata, groupby, "groupby")


def _numbers(
    codes: np.ndarray, names: Sequence[str], n_cells: int, groupby: str | None, proportions: Mapping[str, float] | None
) -> dict[int, int]:
    """New cells of each group: shares rounded down, and the rest to the largest remainders."""
    if proportions is None:
        shares = np.bincount(codes[codes >= 0], minlength=len(names)).astype(float)
    else:
        given = {str(name): float(share) for name, share in proportions.items()}
        unknown = [name for name in given if name not in names]
        if unknown:
            msg = f"`proportions` has {listed(unknown)}, but `adata.obs[{groupby!r}]` has the groups {listed(names)}."
            raise KeyError(msg)
        shares = np.array([given.get(name, 0.0) for name in names])
    exact = n_cells * shares / shares.sum()
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: n_cells - whole.sum()]] += 1
    return dict(enumerate(whole.tolist()))


def _with_library(
    cells: LatentCells, observed: LatentCells, codes: np.ndarray, library: str | float, rng: np.random.Generator
) -> LatentCells:
    """Replace the library sizes, where others are asked for."""
    if library == "joint":
        return cells
    if not isinstance(library, str):
        return cells._replace(log_library=np.full(len(cells.donors), np.log(library), np.float32))
    log_library = np.empty(len(cells.donors), np.float32)
    of_cell = codes[cells.donors]
    for code in np.unique(of_cell):
        mine = of_cell == code
        log_library[mine] = rng.choice(observed.log_library[codes == code], mine.sum())
    return cells._replace(log_library=log_library)


def _obs(adata: ad.AnnData, fitted: Fitted, cells: LatentCells, *, new: bool) -> pd.DataFrame:
    """Columns that the model used, as it used them."""
    columns = fitted.columns
    used = [columns.batch_key, columns.labels_key]
    used += [*columns.categorical_covariate_keys, *columns.continuous_covariate_keys]
    names = [f"generated_{i}" for i in range(len(cells.donors))] if new else adata.obs_names
    obs = adata.obs[list(dict.fromkeys(k for k in used if k is not None))].iloc[cells.donors].set_axis(names)
    obs = obs.assign(generated=True, **{f"{fitted.keys.key_added}_library": np.exp(cells.log_library)})
    if columns.size_factor_key is not None:
        log_factor = cells.log_library.astype(float) - fitted.categories.log_size_factor_offset
        obs[columns.size_factor_key] = np.exp(log_factor)
    return obs


def _described(drawn: Generated, names: Sequence[str]) -> dict[str, Any]:
    """What the densities were."""
    if not drawn.n_components:
        return {}
    groups = np.array([names[code] for code in drawn.n_components])
    return {"groups": groups, "n_components": np.array(list(drawn.n_components.values()))}
