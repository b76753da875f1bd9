"""What a condition would do to cells that were not seen under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

from .. import _logging
from ..posterior import latent_moments
from ..posterior.counterfactual import Decoding, decoded, interval
from ..posterior.shifts import Shift, resampled, within_types
from ..store.load import Fitted, load
from ..store.results import write_result
from ..store.scale import PER_10K, Scale, scale_name
from ..training.device import resolve_device
from ..training.threads import limited_to_useful
from ._assemble import check_choice, check_number
from ._perturbation_sides import Conditions
from ._presets import recorded, resolve_options
from ._requests import gene_positions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from ..training.batches import CellTable

SUFFIX = "_prediction"
UNSTORED = {"genes", "device"}


def predict_perturbation(
    adata: ad.AnnData,
    condition_key: str,
    *,
    source: str,
    target: str,
    cell_type_key: str | None = None,
    cell_types: str | Sequence[str] | None = None,
    shift_types: str | Sequence[str] | None = None,
    method: Literal["auto", "latent_shift", "transform_batch"] = "auto",
    balance: Literal["within", "resample"] = "within",
    min_cells: int = 10,
    genes: Sequence[str] | None = None,
    library_size: float | None = None,
    key: str = "scvi",
    random_state: int = 0,
    device: str = "auto",
) -> ad.AnnData:
    r"""Predict what cells would express under another condition, which their cell type need not have been seen under.

    Where the fit knows nothing of the condition, it is a direction in latent space (scGen). The shift is averaged over
    the C cell types that have cells under both conditions, each with the same weight, and added to the cells of the
    source,

    .. math::

        \delta = \frac1C \sum_{c=1}^C \left( \bar m_{c, \mathrm{target}} - \bar m_{c, \mathrm{source}} \right), \qquad
        \hat x_n = \mathrm{decode}(m_n + \delta,\, s_n)

    with m the posterior means and s the cell's own batch and covariates. Differences within types are free of which
    types there are: a type that was seen under the source alone has no part in :math:`\delta`. In scGen's own way,
    `balance="resample"`, it has, and the prediction for it is drawn towards the other types, by one C-th of their
    distance under the source; see the user guide on the mathematics.

    Where the decoder is given the condition, as the `batch_key`, as a covariate, or through batches that each are of
    one condition, the latent space was fitted to be free of it, and there is no shift to be found. Then the condition
    is exchanged in the decoder instead (`method="transform_batch"`), in all its batches in proportion to their cells.

    A shift is an average over the types that were seen. It says nothing of a response that only the asked type has, and
    a fit that was not shown a type at all should not be asked for it.

    Parameters
    ----------
    adata
        Annotated counts with a fit under `uns[key]`.
    condition_key
        Column of `obs` with the conditions.
    source, target
        The condition of the cells to start from, and the one to predict.
    cell_type_key
        Column of `obs` with cell types. Without it all cells are of one type, and a difference in which types there are
        is taken for a response.
    cell_types
        Types to predict; by default all that have cells of the source.
    shift_types
        Types that the shift may be learned from; by default all. To see how well a type can be told from the others
        where its cells under the target are in `adata`, leave it out here, and out of the fit.
    method
        `"latent_shift"`, `"transform_batch"`, or `"auto"`: the second where the decoder is given the condition.
    balance
        `"within"`, as above, or `"resample"`, for comparisons with scGen: under each condition, every type is drawn
        with replacement up to the largest, both samples are cut to the same size, and the means of all their cells
        compared.
    min_cells
        Least cells of a type under either condition that count as seen, with `balance="within"`.
    genes
        Names of the genes wanted; all modelled genes by default.
    library_size
        Total that proportions are scaled to. By default 10,000 for fits of counts, while fits of log-normalised counts
        answer on their own scale, :math:`\log(1 + T x / \ell)`.
    key
        Name of the fit.
    random_state
        Seed of what is drawn with `balance="resample"`, and of the cells that are drawn anew for the uncertainty where
        there is one type.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.

    Returns
    -------
    A new AnnData with the source's cells of the types asked for; `adata` stays as it is.

    `X`
        Predicted expression, cells x genes, float32, on the scale that `uns["scvi_prediction"]["scale"]` names.
    `layers["source"]`
        The same cells under the source, as the model has them, on the same scale: the difference is the effect, without
        what denoising does.
    `obs`
        Of the source's cells, but for `condition_key`, which is the target; `obs["predicted"]` is `True`, which tells
        the cells apart after `anndata.concat`. Names end in `"_predicted"`.
    `obsm["X_scvi"]`
        Latent states that were decoded.
    `uns["scvi_prediction"]`
        `params`, `method`, `scale`; `genes`, a table with a row for each type asked for and gene: means of `source` and
        `predicted`, their `difference`, and with a shift the standard error `se` and the bounds `low` and `high` of a
        95% interval of `predicted`. With a shift also `shift` (n_latent), and `types`, a table of those it is averaged
        over, with the numbers of their cells and the `length` of their own shift, and `type_shifts` (types x n_latent).

    Raises
    ------
    KeyError
        Where there is no fit under `key`, or no such column, condition, cell type or gene.
    ValueError
        Where the shift or the exchange has no meaning or no cells, or an option is out of range.

    Notes
    -----
    With two types or more, their own shifts tell how uncertain the prediction is: with s the standard deviation over
    them of the predicted mean (of its logarithm, where expression is positive), `se` is :math:`s / \sqrt C`, and the
    interval :math:`\pm t_{C-1}\, s \sqrt{1 + 1/C}` is meant for one type more, as if types were a normal sample. It is
    wide where there are few. With one type, and with `balance="resample"`, the cells are drawn anew 50 times, and the
    interval knows nothing of how types differ.

    References
    ----------
    Lotfollahi, Wolf, Theis 2019, scGen predicts single-cell perturbation responses, Nat Methods 16:715,
    doi:10.1038/s41592-019-0494-8.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=300, density=0.3)
    >>> sv.tl.scvi(adata, max_epochs=5, progress=False)
    >>> new = sv.tl.predict_perturbation(
    ...     adata, "batch", source="batch_0", target="batch_1", cell_type_key="label", cell_types=["label_0"]
    ... )
    >>> new.obs["batch"].unique().tolist(), new.uns["scvi_prediction"]["scale"]
    (['batch_1'], 'counts per 10,000')
    """
    given = resolve_options(predict_perturbation, locals())
    start = _logging.info("predicting a response")
    _check(given)
    fitted = load(adata, key, counts=False)
    genes = [genes] if isinstance(genes, str) else genes
    positions = gene_positions(fitted, genes)
    found = Conditions.of(adata, condition_key, cell_type_key, source, target)
    asked = found.asked(cell_types)
    cells, torch_device = fitted.read(adata), resolve_device(device)
    covariate = found.exchange(fitted, cells, method)
    scale = _scale(fitted, library_size)
    here, there = Decoding(scale.library_size, positions), Decoding(scale.library_size, positions, covariate)
    rows = np.flatnonzero(found.source & np.isin(found.types, asked))
    with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):
        mean = latent_moments(fitted.model, cells, device=torch_device).mean
        shift, types = None, np.empty(0, np.int64)
        if covariate is None:
            types, sides = found.sides(shift_types, min_cells if balance == "within" else None)
            rng = np.random.default_rng(int(random_state))
            shift = (within_types if balance == "within" else resampled)(mean, sides, rng)
        z = mean[rows] if shift is None else (mean[rows] + shift.delta).astype(np.float32)
        problem = _Problem(fitted, cells, torch_device)
        values = [problem.decode(rows, *what) for what in ((mean[rows], here), (z, there))]
        table = problem.table(found, asked, rows, mean[rows], values, shift, there)
    predicted = _assembled(adata, fitted, found, rows, values, z, positions)
    params = {k: v for k, v in recorded(predict_perturbation, given).items() if k not in UNSTORED}
    params |= {name: _names(params[name]) for name in ("cell_types", "shift_types")}
    content = {"method": "latent_shift" if covariate is None else "transform_batch", "scale": scale.name}
    content |= {"genes": table} | _learned(found, types, mean, shift)
    write_result(predicted, f"{key}{SUFFIX}", params, content)
    _logging.closing_line(f"{source} to {target}: predicted {len(rows)} cells of {predicted.n_vars} genes", time=start)
    return predicted


class _Problem(NamedTuple):
    """A fit, the cells, and where to compute."""

    fitted: Fitted
    cells: CellTable
    device: torch.device

    def decode(self, rows: np.ndarray, z: np.ndarray, how: Decoding) -> np.ndarray:
        """Expression of the cells `rows` in the latent states `z`, (n, n_genes), float32."""
        n_genes = len(self.fitted.var_names) if how.genes is None else len(how.genes)
        values = np.empty((len(rows), n_genes), np.float32)
        for part, chunk in decoded(self.fitted.model, self.cells, rows, z, how, device=self.device):
            values[part] = chunk
        return values

    def table(
        self,
        found: Conditions,
        asked: np.ndarray,
        rows: np.ndarray,
        mean: np.ndarray,
        values: Sequence[np.ndarray],
        shift: Shift | None,
        how: Decoding,
    ) -> pd.DataFrame:
        """Mean expression of each type asked for, before and after, and how uncertain it is."""
        names = np.array(self.fitted.var_names)[slice(None) if how.genes is None else how.genes]
        tables = []
        for code in asked:
            mine = found.types[rows] == code
            source, predicted = (v[mine].mean(0, dtype=np.float64) for v in values)
            columns = {"source": source, "predicted": predicted, "difference": predicted - source}
            if shift is not None:
                where = (rows[mine], mean[mine], shift, predicted)
                columns |= interval(self.fitted.model, self.cells, *where, how, device=self.device)._asdict()
            tables.append(pd.DataFrame({"cell_type": found.type_names[code], "names": names, **columns}))
        return pd.concat(tables, ignore_index=True)


def _check(given: Mapping[str, Any]) -> None:
    """Raise a ValueError for an option that cannot be used."""
    check_choice(given["method"], ("auto", "latent_shift", "transform_batch"), "method")
    check_choice(given["balance"], ("within", "resample"), "balance")
    check_number(given["min_cells"], 1, np.inf, "min_cells", whole=True)
    check_number(given["random_state"], 0, 2**63 - 1, "random_state", whole=True)
    if given["library_size"] is not None:
        check_number(given["library_size"], 1e-12, np.inf, "library_size")


class _Scale(NamedTuple):
    """What predicted values are."""

    library_size: float | None
    name: str


def _scale(fitted: Fitted, library_size: float | None) -> _Scale:
    """Counts per so many; where none is asked for, log-normalised counts for fits of such."""
    total = fitted.model.likelihood.log_normalized_to
    if library_size is None and total is not None:
        return _Scale(None, f"log(1 + {scale_name(Scale(round(total, 6)))})")
    size = PER_10K if library_size is None else float(library_size)
    return _Scale(size, scale_name(Scale(size)))


def _names(wanted: str | Sequence[str] | None) -> list[str] | None:
    """Names as they can be stored."""
    return None if wanted is None else [str(w) for w in ([wanted] if isinstance(wanted, str) else wanted)]


def _assembled(
    adata: ad.AnnData,
    fitted: Fitted,
    found: Conditions,
    rows: np.ndarray,
    values: Sequence[np.ndarray],
    z: np.ndarray,
    positions: np.ndarray | None,
) -> ad.AnnData:
    """Predicted cells as an AnnData of their own."""
    source, predicted = values
    obs = adata.obs.iloc[rows].set_axis([f"{name}_predicted" for name in adata.obs_names[rows]])
    condition = adata.obs[found.condition_key].array
    obs = obs.assign(predicted=True, **{found.condition_key: condition.take([int(found.target.argmax())] * len(rows))})
    columns = fitted.gene_positions if positions is None else fitted.gene_positions[positions]
    return ad.AnnData(
        predicted,
        obs=obs,
        var=adata.var.iloc[columns].copy(),
        layers={"source": source},
        obsm={fitted.keys.latent: z},
    )


def _learned(found: Conditions, types: np.ndarray, mean: np.ndarray, shift: Shift | None) -> dict[str, Any]:
    """The shift, and the types that it was learned from; nothing where there is none."""
    if shift is None:
        return {}
    seen = {"cell_type": [found.type_names[t] for t in types]}
    masks = [[side & (found.types == t) for t in types] for side in (found.source, found.target)]
    table = pd.DataFrame(seen | {name: [int(m.sum()) for m in side] for name, side in zip(_SIDES, masks, strict=True)})
    learned: dict[str, Any] = {"shift": shift.delta.astype(np.float32), "types": table}
    if shift.of_types:
        learned["type_shifts"] = shift.replicates.astype(np.float32)
        table["length"] = np.linalg.norm(shift.replicates, axis=1)
    return learned


_SIDES = ("n_source", "n_target")
