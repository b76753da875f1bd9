"""A latent space turned so that each perturbation moves few of its dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _logging
from ..numerics import ica_rotation, sparse_rotation
from ..numerics.shift_rule import ShiftRule
from ..store.checks import listed
from ..store.covariates import group_names
from ..store.map_network import read_rows, rep_id
from ..store.results import check_slot, write_result
from ..store.write import actualise
from ._assemble import check_choice, check_number
from ._presets import recorded, resolve_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from ..numerics.sparse_rotation import Rotation

METHODS = {"sparse": sparse_rotation.sparse_rotation, "ica": ica_rotation.ica_rotation}
STARTS = {"sparse": sparse_rotation.N_STARTS, "ica": ica_rotation.N_STARTS}
ERRORS = 3.0
"""Standard errors that the shift of a target is away from zero, at least."""
FIELDS = {"params", "matrix", "inverse", "center", "shifts", "targets"}
UNSTORED = {"key_added"}


def rotate(
    adata: AnnData,
    perturbation_key: str,
    *,
    use_rep: str = "X_scvi",
    control: str | None = None,
    method: Literal["sparse", "ica"] = "sparse",
    threshold: float = 0.5,
    min_share: float = 0.3,
    n_starts: int | None = None,
    key_added: str | None = None,
    random_state: int = 0,
    copy: bool = False,
) -> AnnData | None:
    r"""Turn a latent space so that each perturbation moves few of its dimensions.

    A latent space is known up to an invertible map: its dimensions mean nothing one by one. Where each perturbation
    moves a few of the dimensions that cells truly have, means and covariances tell which map brings them back. With S
    the pooled covariance within perturbations, :math:`c_k` the centroid of perturbation k and :math:`c_0` that of the
    control,

    .. math::

        r_n = R^\top S^{-1/2} (z_n - c_0), \qquad
        R = \arg\min_{R^\top R = I} \sum_{k,j} \sqrt{(m_k R)_j^2 + 3^2}, \qquad
        m_k = \frac{(c_k - c_0)^\top S^{-1/2}}{s_k}, \quad s_k^2 = \frac{1}{n_k} + \frac{1}{n_0}.

    The criterion is the sum of absolute shifts in standard errors, smooth below three of these. The rotated state is
    white within perturbations, the control lies at zero, and a shift is in standard deviations within perturbations.
    Without a control, shifts are counted from the median perturbation: in each rotated dimension, the origin is the
    point from which they are sparsest, and :math:`s_k^2 = 1 / n_k`. This assumes that most perturbations leave a
    dimension as it is.

    Dimensions are sorted by their sum of absolute shifts in standard errors, falling; in each, the longer tail of the
    shifts is up. Directions that no perturbation moves are last.

    Nothing is fitted to counts, so that this serves any representation, and as a baseline for models with sparse
    shifts. A dimension is a direction in the latent space, not a gene or a pathway, and a target is a dimension that
    cells with the perturbation are shifted along, for whatever reason. More perturbations than dimensions are needed,
    that differ in what they move, and each of which moves a small part of the dimensions; with two conditions there is
    nothing to find.

    Parameters
    ----------
    adata
        Annotated data with a representation of cells.
    perturbation_key
        Column of `obs` with the perturbation. Cells without one do not count, and are rotated along.
    use_rep
        Key of `obsm` to rotate.
    control
        Name of the cells without perturbation; `None` where there are none.
    method
        `"sparse"` as above. `"ica"`: independent components of the cells (FastICA), which reads no perturbations; these
        only give center, order, signs and scale. It finds dimensions that are far from normal over cells, which
        those are that strong perturbations move, but also those of cell types or the cycle.
    threshold
        Standard deviations that the shift of a target has at least; it also has three standard errors.
    min_share
        Share of the perturbation's largest shift that the shift of a target has at least: no dimension is found
        exactly, and a large shift along one leaves something in others.
    n_starts
        Random starts, of which the best is kept; 10 for `"sparse"` and 5 for `"ica"` by default.
    key_added
        Key of the result; `"scvi_rotated"` by default for `use_rep="X_scvi"`.
    random_state
        Seed of the starts.
    copy
        Whether to return a changed copy rather than to change `adata`.

    Returns
    -------
    `None`, or the changed copy. Written:

    `obsm["X_scvi_rotated"]`
        The rotated representation, float32.
    `uns["scvi_rotated"]`
        `matrix`, `center` and `inverse`, with `rotated = (z - center) @ matrix` and `z = rotated @ inverse + center`;
        `perturbations`, their names in the order of rows, without the control; `shifts` (perturbations × dimensions),
        their `standard_errors` and `n_cells` by perturbation; `targets`, whether a shift is beyond
        `threshold`, `min_share` and three standard errors; `origin`, `"control"` or `"median"`; `criterion` and
        `n_agree`, how many starts found it; `n_collapsed`, the number of last dimensions in which cells of a
        perturbation are all alike; `reference_id`, the fingerprint of the space of `use_rep`, where it is that of a fit
        or of `sc.pp.pca`; `params`.

    Raises
    ------
    KeyError
        Where there is no such column, representation or control.
    ValueError
        Where the representation has NaN, fewer than two perturbations (beside the control) have two cells, there are
        too few cells for a covariance, or an option cannot be used. `adata` stays as it was.

    Notes
    -----
    A single cell with its perturbation has a shift, but does not count for the map. Where only one of the starts finds
    the kept one (`n_agree`), others may find a better one: pass more. In simulations this criterion finds
    the dimensions where varimax and quartimax do not, whose fourth powers follow the largest shifts; the table is in
    :doc:`/mathematics`.

    References
    ----------
    The criterion, its origin and its scale are this package's own. Jennrich 2001, Psychometrika 66:289, whose descent
    over rotations it uses; Hyvärinen 1999, IEEE Trans Neural Netw 10:626, for FastICA; Lopez et al. 2022,
    arXiv:2211.03553, for perturbations as sparse shifts of latent dimensions.

    Examples
    --------
    Twenty guides, each of which moves one of five dimensions, seen through an unknown map:

    >>> import anndata as ad, numpy as np, scanpy_scvi as sv
    >>> rng = np.random.default_rng(0)
    >>> guide = np.repeat(np.arange(21), 60)
    >>> shift = np.zeros((21, 5))
    >>> shift[np.arange(1, 21), np.arange(20) % 5] = 2
    >>> z = (shift[guide] + rng.normal(size=(1260, 5))) @ rng.normal(size=(5, 5))
    >>> adata = ad.AnnData(obsm={"X_scvi": z}, shape=(1260, 0))
    >>> adata.obs["guide"] = [f"guide_{g}" for g in guide]
    >>> sv.tl.rotate(adata, "guide", control="guide_0")
    >>> found = adata.uns["scvi_rotated"]
    >>> found["targets"].sum(axis=0).tolist(), bool((found["targets"].sum(axis=1) == 1).all())
    ([4, 4, 4, 4, 4], True)
    >>> int(found["n_agree"]) > 1
    True
    """
    given = resolve_options(rotate, locals())
    start = _logging.info("rotating a latent space")
    _check(given)
    key = f"{str(use_rep).removeprefix('X_')}_rotated" if key_added is None else key_added
    check_slot(adata, key, FIELDS, found="holds no rotation", beside=[("obsm", f"X_{key}")])
    if use_rep == f"X_{key}":
        msg = f"`adata.obsm[{use_rep!r}]` would be overwritten by its own rotation. Pass another `key_added`."
        raise ValueError(msg)
    z = read_rows(adata, use_rep, "use_rep")
    codes, names = group_names(adata, perturbation_key, "perturbation_key")
    position = _position(adata, perturbation_key, names, control)
    starts = STARTS[method] if n_starts is None else int(n_starts)
    found = METHODS[method](z, codes, control=position, n_starts=starts, random_state=int(random_state))
    target = adata.copy() if copy else adata
    actualise(target)
    params = {k: v for k, v in recorded(rotate, given).items() if k not in UNSTORED} | {"n_starts": starts}
    rule = ShiftRule(float(threshold), float(min_share), ERRORS)
    content, space = _content(found, names, position, rule), rep_id(adata, use_rep)
    content |= {} if space is None else {"reference_id": space}
    target.obsm[f"X_{key}"] = found.rotate(z)
    write_result(target, key, params, content)
    _warn(found, starts)
    counted = "the control" if position is not None else "the median perturbation"
    said = f"rotated {use_rep!r} by {len(content['perturbations'])} perturbations, counted from {counted}"
    _logging.closing_line(said, added=[f".obsm['X_{key}']", f".uns[{key!r}]"], time=start)
    return target if copy else None


def _check(given: Mapping[str, Any]) -> None:
    """Raise a ValueError for an option out of range."""
    check_choice(given["method"], tuple(METHODS), "method")
    check_choice(given["copy"], (True, False), "copy")
    check_number(given["threshold"], 0, np.inf, "threshold")
    check_number(given["min_share"], 0, 1, "min_share")
    check_number(given["random_state"], 0, 2**63 - 1, "random_state", whole=True)
    if given["n_starts"] is not None:
        check_number(given["n_starts"], 1, 10**5, "n_starts", whole=True)


def _position(adata: AnnData, perturbation_key: str, names: Sequence[str], control: str | None) -> int | None:
    """Number of the control among the names."""
    if control is None:
        return None
    if str(control) not in names:
        msg = f"`adata.obs[{perturbation_key!r}]` has no {control!r}, but `control` expects one of {listed(names)}."
        raise KeyError(msg)
    return list(names).index(str(control))


def _content(found: Rotation, names: Sequence[str], control: int | None, rule: ShiftRule) -> dict[str, Any]:
    """What is stored of a rotation, the control left out."""
    rows = [i for i in range(len(names)) if i != control]
    shifts, errors = found.shifts[rows], found.standard_errors[rows]
    return {
        "matrix": found.matrix,
        "inverse": found.inverse,
        "center": found.center,
        "perturbations": [names[i] for i in rows],
        "n_cells": found.n_cells[rows],
        "shifts": shifts,
        "standard_errors": errors,
        "targets": rule.opens(shifts, errors[:, None]),
        "origin": "median" if control is None else "control",
        "criterion": found.criterion,
        "n_agree": found.n_agree,
        "n_collapsed": found.n_collapsed,
    }


def _warn(found: Rotation, n_starts: int) -> None:
    """Say what the user should know of a rotation that is not well determined."""
    n, p = found.n_moved, len(found.center)
    if found.n_collapsed:
        _logging.warning(
            f"{found.n_collapsed} directions have no spread within perturbations: they are last, and not rotated."
        )
    if n + found.n_collapsed < p:
        _logging.warning(
            f"The perturbations span {n} of {p} dimensions: the others are not rotated. More perturbations than "
            "dimensions are needed, or a representation of fewer dimensions."
        )
    if n_starts > 1 and found.n_agree == 1:
        _logging.hint(f"Only one of {n_starts} starts found this rotation. Pass more `n_starts`, or another seed.")
