"""Which cells a response is learned from and predicted for, and what the decoder is told of the condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..posterior.counterfactual import Covariate
from ..posterior.shifts import Sides
from ..store.checks import listed
from ..store.covariates import group_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from anndata import AnnData

    from ..store.load import Fitted
    from ..training.batches import CellTable

EVERY_CELL = "all"
"""Name of the one type where there is no column of types."""


@dataclass(frozen=True)
class Conditions:
    """The cells under two conditions, and their types."""

    condition_key: str
    cell_type_key: str | None
    names: tuple[str, str]
    source: np.ndarray
    """Which cells are under the source, bool."""
    target: np.ndarray
    types: np.ndarray
    """Codes of the types, -1 where there is none."""
    type_names: list[str]

    @classmethod
    def of(cls, adata: AnnData, condition_key: str, cell_type_key: str | None, source: str, target: str) -> Conditions:
        """Read and check the columns."""
        codes, names = group_names(adata, condition_key, "condition_key")
        for name, argument in ((source, "source"), (target, "target")):
            if str(name) not in names:
                msg = (
                    f"`{argument}` is {name!r}, but `adata.obs[{condition_key!r}]` has the conditions {listed(names)}."
                )
                raise KeyError(msg)
        if str(source) == str(target):
            msg = f"`source` and `target` are both {source!r}, but two conditions were expected."
            raise ValueError(msg)
        under = {str(name): codes == names.index(str(name)) for name in (source, target)}
        if cell_type_key is None:
            types, type_names = np.zeros(adata.n_obs, np.int64), [EVERY_CELL]
        else:
            types, type_names = group_names(adata, cell_type_key, "cell_type_key")
        return cls(
            condition_key=condition_key,
            cell_type_key=cell_type_key,
            names=(str(source), str(target)),
            source=under[str(source)],
            target=under[str(target)],
            types=types,
            type_names=type_names,
        )

    def asked(self, cell_types: str | Sequence[str] | None) -> np.ndarray:
        """Codes of the types to predict, which have cells of the source."""
        n_source = np.bincount(self.types[self.source & (self.types >= 0)], minlength=len(self.type_names))
        codes = self._codes(cell_types, "cell_types")
        if cell_types is None:
            codes = codes[n_source[codes] > 0]
        without = [self.type_names[c] for c in codes if not n_source[c]]
        if without or not len(codes):
            which = f"of the types {listed(without)}" if without else "with a type"
            msg = (
                f"There are no cells {which} under {self.names[0]!r}, but a prediction starts from such. Ask for other "
                "`cell_types`."
            )
            raise ValueError(msg)
        return codes

    def sides(self, shift_types: str | Sequence[str] | None, min_cells: int | None) -> tuple[np.ndarray, Sides]:
        """Codes of the types that a shift is learned from, and their cells.

        These have `min_cells` under either condition; with None, any cells under one of them.
        """
        codes = self._codes(shift_types, "shift_types")
        sides = Sides.of(self.types, len(self.type_names), self.source, self.target)
        sizes = sides.sizes()[codes]
        if min_cells is None:
            found = codes[sizes.any(1)]
            if not sizes.sum(0).all():
                raise ValueError(self._no_shift(codes, sizes, "any cells of these types under both conditions"))
        else:
            found = codes[sizes.min(1, initial=np.iinfo(np.int64).max) >= min_cells]
            if not len(found):
                raise ValueError(
                    self._no_shift(codes, sizes, f"a type with {min_cells} cells under both (`min_cells`)")
                )
        return found, sides.only(found)

    def _no_shift(self, codes: np.ndarray, sizes: np.ndarray, expected: str) -> str:
        numbers = [f"{self.type_names[c]}: {s} and {t}" for c, (s, t) in zip(codes, sizes, strict=True)]
        have = ", ".join(numbers[:5]) + (", …" if len(numbers) > 5 else "")
        what = f"A shift from {self.names[0]!r} to {self.names[1]!r} needs {expected}"
        return f"{what}, but the numbers of cells are {have}."

    def _codes(self, wanted: str | Sequence[str] | None, argument: str) -> np.ndarray:
        """Codes of types by name, in the order of the column; all for None."""
        if wanted is None:
            return np.arange(len(self.type_names))
        if self.cell_type_key is None:
            msg = f"`{argument}` is {wanted!r}, but cells have no types without `cell_type_key`. Pass it too."
            raise ValueError(msg)
        wanted = [wanted] if isinstance(wanted, str) else wanted
        names = [str(name) for name in wanted]
        unknown = [name for name in names if name not in self.type_names]
        if unknown or not names:
            known = f"`adata.obs[{self.cell_type_key!r}]` has the types {listed(self.type_names)}"
            msg = f"`{argument}` has {listed(unknown)}, but {known}."
            raise KeyError(msg)
        return np.flatnonzero(np.isin(self.type_names, names))

    def exchange(self, fitted: Fitted, cells: CellTable, method: str) -> Covariate | None:
        """What is exchanged in the decoder, where it is given the condition and `method` allows; None for a shift."""
        if self.condition_key in fitted.columns.continuous_covariate_keys:
            msg = (
                f"`adata.obs[{self.condition_key!r}]` is a continuous covariate of the fit, which has no categories to "
                "exchange, and the latent space was fitted to be free of it. Fit without it."
            )
            raise ValueError(msg)
        name, found = next(self._told(fitted, cells), (None, None))
        if method == "transform_batch" and found is None:
            msg = (
                f"`method='transform_batch'` exchanges the condition in the decoder, but the decoder of "
                f"`uns[{fitted.keys.key_added!r}]` is given no column that tells {self.condition_key!r}. Use "
                "`method='latent_shift'`."
            )
            raise ValueError(msg)
        if method == "latent_shift" and found is not None:
            msg = (
                f"The decoder of `uns[{fitted.keys.key_added!r}]` is given the condition, by `adata.obs[{name!r}]`, so "
                "the latent space was fitted to be free of it and holds no shift. Use `method='transform_batch'`, or a "
                "fit without that column."
            )
            raise ValueError(msg)
        return found

    def _told(self, fitted: Fitted, cells: CellTable) -> Iterator[tuple[str, Covariate]]:
        """Yield the columns that the decoder is given and that tell source from target, and the target's categories."""
        columns, categories = fitted.columns, fitted.categories
        given: Iterable[tuple[str | None, int | None, np.ndarray, int]] = [
            (columns.batch_key, None, cells.batch, len(categories.batch)),
            *(
                (name, i, cells.categorical[:, i], len(categories.categorical[i]))
                for i, name in enumerate(columns.categorical_covariate_keys)
            ),
        ]
        for name, number, codes, size in given:
            if name is None:
                continue
            n_source, n_target = (np.bincount(codes[side], minlength=size) for side in (self.source, self.target))
            if not ((n_source > 0) & (n_target > 0)).any():
                yield name, Covariate(number, n_target / n_target.sum())
