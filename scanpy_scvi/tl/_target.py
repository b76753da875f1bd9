"""Where the results of a call go: the object itself, a copy of it, or a file."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..store.checks import check_is_object, check_tables
from ..store.draft import draft_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anndata import AnnData


class Target(NamedTuple):
    """What is read, and takes the results."""

    adata: AnnData
    new_layer: Callable[[str], Any] | None = None
    """Makes room for a layer in a file; None for memory."""


@contextmanager
def target_of(given: Mapping[str, Any]) -> Iterator[Target]:
    """Open what a call names by `adata`, `out` and `copy`; a file is written when the block has succeeded."""
    adata, out = given["adata"], given.get("out")
    if not isinstance(adata, (str, os.PathLike)):
        if out is not None:
            msg = (
                f"`out` is {str(out)!r}, but `adata` is an object and not the path of a file. Leave `out` away, and "
                "write the object when the call has changed it."
            )
            raise ValueError(msg)
        if given["copy"] and adata.isbacked:
            msg = (
                "`copy` is True, but the counts of `adata` stay in its file. Pass the path of the file, and that of a "
                "new one as `out`."
            )
            raise ValueError(msg)
        check_tables(adata)
        yield Target(adata.copy() if given["copy"] else adata)
        return
    if "out" not in given:
        check_is_object(adata)
    if given["copy"]:
        msg = "`copy` is True, but `adata` is the path of a file. Pass the path of the new file as `out`."
        raise ValueError(msg)
    with draft_of(Path(adata), Path(adata if out is None else out), given["layer"]) as draft:
        yield Target(draft.adata, draft.layer)
