"""Perturbations that a fit has not seen, appended to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch

from .. import _logging
from ..modules.priors import PerturbationLinks
from ..modules.spec import Part
from ..numerics.label_shifts import ShiftEstimate, estimate_shifts, link_design
from ..numerics.shift_rule import ShiftRule, gate_probability
from ..posterior import LatentMoments, latent_moments
from ..store.checks import listed
from ..store.covariates import categorical_names
from ..store.identity import data_entry
from ..store.keys import Keys
from ..store.load import Fitted, find_entry, load
from ..store.mapping import mapped_model
from ..store.perturbation_tables import ShiftedBy, shift_tables, stacked
from ..store.perturbations import check_perturbation_key, read_perturbations
from ..store.read import read_like
from ..store.reference import as_reference
from ..store.results import storable
from ..store.stored_shifts import StoredShifts, read_shifts
from ..store.uns import from_uns_strings, to_uns
from ..store.write import Extras, check_free
from ..training.device import resolve_device
from ..training.threads import limited_to_useful
from ._fit import write_fit
from ._presets import resolve_options
from ._sparse_shifts import Decision, beside, mean_by_perturbation, responses, shift_of_labels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from anndata import AnnData
    from scipy import sparse

    from ..modules.priors import SparseShift
    from ..store.covariates import ColumnKeys
    from ..training.batches import CellTable


def svae_transfer(
    adata: AnnData,
    reference: AnnData | str | PathLike[str],
    *,
    perturbation_key: str | None = None,
    batch_key: str | None = None,
    layer: str | None = None,
    key: str = "svae",
    key_added: str | None = None,
    device: str = "auto",
    copy: bool = False,
) -> AnnData | None:
    r"""Append perturbations that a fit of :func:`svae` has not seen, in one pass and in place.

    Nothing is fitted: given the encoder, the bound is largest in closed form, and all else stays as it is. The shift of
    a new perturbation is the mean of its cells' posterior means (least squares where cells have several perturbations,
    the shifts of known ones being given), from which what its batch adds in the reference is taken off. Its standard
    error is from the variance within perturbations and the number of control cells of the reference, and its gates are
    decided by the reference's own rule.

    Use it for perturbations of a later experiment, of the same cells and genes, and to see how well a space that was
    found from some perturbations tells others apart. Cells whose state no cell of the reference has cannot be placed
    faithfully. A batch that the fit has not seen is refused: what is new in it could not be told from the perturbation.

    Parameters
    ----------
    adata
        Counts of cells with new perturbations; among them may be some that the fit knows, whose shifts stay as they
        are.
    reference
        The AnnData that was fitted, or the path of its file.
    perturbation_key, batch_key
        Columns of `adata.obs`; by default the names that they had in the fit.
    layer
        Layer with the counts; by default `X`.
    key
        Name of the fit in the reference.
    key_added
        Name of the result in `adata`; `key` by default.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.
    copy
        Whether to return a changed copy rather than to change `adata`.

    Returns
    -------
    `None`, or the changed copy. Written are the slots of :func:`svae` for the cells of `adata`, under `key_added`, with
    the model of the reference that now knows the new perturbations: all that asks a fit works on it. In `uns["svae"]`,
    rows of the new perturbations follow those of the reference in `effects`, `targets` and `perturbations` (with a
    `gain` of NaN: no cell was held out); `transferred` are their names. `varm["svae_programs"]` and
    `var["svae_basal_expression"]` are taken over where `reference` is an AnnData.

    Raises
    ------
    KeyError
        Where `reference` has no fit under `key`, or `adata` lacks a column or a gene of it.
    ValueError
        Where the fit is none of :func:`svae`, no perturbation is new, or a batch is. `adata` stays as it was.

    References
    ----------
    Lopez et al. 2023, CLeaR, PMLR 213:662, arXiv 2211.03553, who take 300 epochs over what is a mean here.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate_perturbations(n_perturbations=8, n_latent=4, cells_per_perturbation=40)
    >>> is_new = adata.obs["perturbation"] == "perturbation_7"
    >>> seen, new = adata[~is_new].copy(), adata[is_new].copy()
    >>> sv.tl.svae(seen, "perturbation", control="control", n_latent=4, max_epochs=5, progress=False)
    >>> sv.tl.svae_transfer(new, seen)
    >>> new.uns["svae"]["transferred"].tolist(), new.uns["svae"]["effects"].shape
    (['perturbation_7'], (8, 4))
    """
    given = resolve_options(svae_transfer, locals())
    start = _logging.info("appending perturbations")
    source = as_reference(reference)
    fitted, entry = load(source, key), find_entry(source, key)
    known = read_shifts(entry, key)
    keys = Keys(key if key_added is None else key_added)
    if source is adata and not copy and keys == fitted.keys:
        msg = "`adata` and `reference` are the same object, whose fit would be lost. Pass `key_added`, or `copy=True`."
        raise ValueError(msg)
    columns = _columns(fitted, given)
    check_perturbation_key(adata, str(columns.labels_key))
    check_free(adata, keys, columns.names(), beside(keys))
    appended = Appended.of(adata, fitted, known, str(columns.labels_key))
    categories = replace(fitted.categories, labels=appended.labels)
    on = replace(fitted.on(adata), keys=keys, columns=columns, categories=categories)
    table = read_like(adata, columns, categories, on.gene_positions, layer)
    with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):
        latent = latent_moments(fitted.model, table, device=resolve_device(device))
    mapped, shifted = _extended(on, known, appended, appended.estimate(latent.mean, table, known))
    shift = appended.label_shift(known, shifted)[table.labels]
    content = mapped_model(entry, mapped, layer, data_entry(table.counts, adata.obs_names))
    content |= _tables(known, shifted, appended, table, responses(latent.mean, shift))
    target = adata.copy() if copy else adata
    extras = _extras(source, fitted, keys, latent, shift)
    written = write_fit(target, keys, content, mapped.model.cpu(), latent, mapped.gene_positions, None, extras)
    _logging.closing_line(f"appended {listed(list(appended.names))}", added=written, time=start)
    return target if copy else None


class Appended(NamedTuple):
    """New perturbations beside those that a fit knows."""

    labels: tuple[str, ...]
    """Labels of the fit, then new ones."""
    names: tuple[str, ...]
    """New perturbations."""
    links: PerturbationLinks
    """Of all labels; new perturbations follow those of the fit."""
    n_known: int

    @classmethod
    def of(cls, adata: AnnData, fitted: Fitted, known: StoredShifts, column: str) -> Appended:
        """What is new in a column of `adata`; raise a ValueError where nothing is."""
        old = fitted.categories.labels
        there = categorical_names(adata, column, "perturbation_key").categories
        labels = (*old, *(name for name in there if name not in old))
        control = from_uns_strings(fitted.params["control"]) if "control" in fitted.params else ()
        found = read_perturbations(labels, control)
        names = tuple(name for name in found.names if name not in known.names)
        if not names:
            msg = (
                f"`adata.obs[{column!r}]` has no perturbation that the fit does not know (there are "
                f"{listed(list(there))}), but new ones were expected. Use `map_query` for new cells of known ones."
            )
            raise ValueError(msg)
        code = {name: k for k, name in enumerate((*known.names, *names))}
        number = np.array([code[name] for name in found.names], np.int64)[found.perturbation]
        links = PerturbationLinks(torch.from_numpy(found.label), torch.from_numpy(number))
        return cls(labels, names, links, len(known.names))

    def design(self) -> sparse.csr_array:
        """Which perturbations (columns) a label (row) stands for, 0 or 1."""
        label, perturbation = (link.numpy() for link in self.links)
        return link_design(label, perturbation, len(self.labels), self.n_known + len(self.names))

    def estimate(self, means: np.ndarray, table: CellTable, known: StoredShifts) -> ShiftEstimate:
        """Shifts of the new perturbations, those of the others being given."""
        design = self.design()
        given = design[:, : self.n_known] @ known.effect
        z = means - given[table.labels] - known.batch_shift[table.batch]
        found = estimate_shifts(z, table.labels, design[:, self.n_known :], variance=known.variance)
        of_control = known.variance / known.n_control if known.n_control else 0.0
        return found._replace(standard_error=np.sqrt(found.standard_error**2 + of_control).astype(np.float32))

    def label_shift(self, known: StoredShifts, shifted: ShiftedBy) -> np.ndarray:
        """Shift of the cells of each label, (n_labels, n_latent), float32."""
        return shift_of_labels(self.design(), np.vstack([known.effect, shifted.effect]))


def _columns(fitted: Fitted, given: Mapping[str, Any]) -> ColumnKeys:
    """Columns to read: those of the fit, but for other names that were given."""
    named = {"labels_key": given["perturbation_key"], "batch_key": given["batch_key"]}
    if named["batch_key"] is not None and fitted.columns.batch_key is None:
        msg = "`batch_key` was given, but the fit knows no batches. Leave it out."
        raise ValueError(msg)
    return replace(fitted.columns, **{name: value for name, value in named.items() if value is not None})


@torch.no_grad()
def _extended(on: Fitted, known: StoredShifts, appended: Appended, estimate: ShiftEstimate) -> tuple[Fitted, ShiftedBy]:
    """The model with rows for the new perturbations, and what these do."""
    old = cast("SparseShift", on.model.cpu().prior)  # it may have encoded on another device
    options = {"n_perturbations": appended.n_known + len(appended.names), "n_links": len(appended.links.label)}
    spec = replace(
        on.spec,
        dims=replace(on.spec.dims, n_labels=len(appended.labels)),
        prior=Part(on.spec.prior.name, {**on.spec.prior.options, **options}),
    )
    model = spec.build().float()
    state = {name: t for name, t in on.model.state_dict().items() if not name.startswith("prior.")}
    model.load_state_dict(state, strict=False)
    by_price = known.method == "svae" or "gate_price" in on.params
    rule = ShiftRule(*known.rule)
    decision = Decision(known.method, rule, by_price=by_price)
    price = rule.price(estimate.n_cells)
    price = np.full_like(price, float(old.price[0, 0])) if by_price else price
    shifted = _decided(known, appended, estimate, decision, price)
    prior = cast("SparseShift", model.prior)
    prior.set_links(appended.links)
    prior.price.copy_(torch.cat([old.price, old.price.new_tensor(price)[:, None].expand(-1, old.price.shape[1])]))
    prior.harden(
        torch.cat([old.logit > 0, torch.from_numpy(decision.gates(shifted))]),
        torch.cat([old.shift, torch.from_numpy(shifted.effect)]),
    )
    return replace(on, model=model.eval(), spec=spec), shifted


def _decided(
    known: StoredShifts, appended: Appended, estimate: ShiftEstimate, decision: Decision, price: np.ndarray
) -> ShiftedBy:
    """What new perturbations do; a gate has the probability that is best for what it brings, less its price."""
    if known.method == "ivae":
        probability = np.ones(estimate.shift.shape)
    else:
        probability = gate_probability(estimate.evidence, price[:, None], linear=known.method == "svae")
    return decision.on(appended.names, estimate, probability, known.null)


def _tables(
    known: StoredShifts, shifted: ShiftedBy, appended: Appended, table: CellTable, response: np.ndarray
) -> dict[str, Any]:
    """The tables of the fit, with rows of the new perturbations."""
    of_label = appended.design()[:, appended.n_known :]
    mean_response = mean_by_perturbation(response, table.labels, of_label)
    new = shift_tables(shifted, mean_response, np.full(len(appended.names), np.nan))
    tables = {name: storable(stacked(known.tables[name], rows), name) for name, rows in new.items()}
    return {**tables, "transferred": to_uns(list(appended.names))}


def _extras(source: AnnData, fitted: Fitted, keys: Keys, latent: LatentMoments, shift: np.ndarray) -> Extras:
    """Basal states, responses, and what the reference has of genes."""
    rows = source.var_names.get_indexer(list(fitted.var_names))
    old, var, varm = fitted.keys, {}, {}
    if old.basal_expression in source.var:
        var[keys.basal_expression] = np.asarray(source.var[old.basal_expression])[rows]
    if old.programs in source.varm:
        varm[keys.programs] = np.asarray(source.varm[old.programs])[rows]
    return Extras({keys.response: responses(latent.mean, shift)}, var, {keys.basal: latent.mean - shift}, varm)
