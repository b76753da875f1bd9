"""The committed parity fixture: weights, counts and answers of sixteen small scvi-tools models.

`python tests/comparison/_fixture.py`, where scvi-tools 1.4.2 is installed, writes it anew. Everything in the file comes
from scvi-tools alone, so that the test that reads it (`tests/modules/test_parity_fixture.py`) needs no scvi-tools.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from _weights import ISSUE_VARIANTS, Answers, Variant

from scanpy_scvi.modules import Cells, Dimensions
from scanpy_scvi.numerics.sparse import CSRRows
from scanpy_scvi.training import CellTable

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = Path(__file__).parents[1] / "data" / "parity_scvi_tools.npz"
BATCHES = ["celseq2_3cl", "celseq2_5cl_p1", "dropseq_3cl"]
N_CELLS = 12
UNUSED = {"nb": ("px_dropout", "px_r_decoder"), "zinb": ("px_r_decoder",)}


class Case(NamedTuple):
    """One model of the fixture."""

    variant: Variant
    dims: Dimensions
    state: dict[str, torch.Tensor]
    """Weights under the names of scvi-tools."""
    counts: np.ndarray
    batch: np.ndarray
    answers: Answers
    """What scvi-tools says, nll aside: that is its formula in float64 on its own float32 parameters."""

    @property
    def cells(self) -> Cells:
        """The cells as we take them."""
        n, n_genes = self.counts.shape
        rows, columns = np.nonzero(self.counts)
        indptr = np.concatenate([[0], np.cumsum((self.counts > 0).sum(1))])
        log_total = np.log(self.counts.sum(1, dtype=np.float64)).astype(np.float32)
        table = CellTable(
            counts=CSRRows(indptr, columns.astype(np.int32), self.counts[rows, columns].astype(np.float32)),
            n_genes=n_genes,
            log_total=log_total,
            log_size_factor=log_total,
            batch=self.batch,
            labels=np.zeros(n, np.int64),
            categorical=np.zeros((n, 0), np.int64),
            continuous=np.zeros((n, 0), np.float32),
        )
        return table.take(np.arange(n))


def read(path: Path = PATH) -> Iterator[Case]:
    """Yield the models of the fixture."""
    with np.load(path, allow_pickle=False) as file:
        counts, batch = file["counts"], file["batch"].astype(np.int64)
        dims = Dimensions(n_genes=counts.shape[1], n_batches=len(BATCHES))
        for i, options in enumerate(json.loads(str(file["variants"]))):
            state, answers = _unpack(file[f"state{i}"]), _unpack(file[f"answers{i}"])
            yield Case(
                Variant(**options),
                dims,
                state,
                counts,
                batch,
                Answers(*(answers.get(name) for name in Answers._fields)),
            )


def write(path: Path = PATH) -> None:
    """Fit sixteen models of scvi-tools, of 8 hidden units and 3 latent dimensions, for one epoch; keep what they say.

    The data are 30 genes and the three libraries `BATCHES` of :func:`scanpy_scvi.datasets.cell_lines`; twelve cells are
    kept.
    """
    import scvi
    from _peer import all_cells, ask_peer, nll64, train

    import scanpy_scvi as sv

    adata = sv.datasets.cell_lines()
    adata = adata[adata.obs["batch"].isin(BATCHES).to_numpy()].copy()
    genes = np.argsort(-adata.X.mean(0).A1)[np.unique(np.geomspace(1, 1200, 37).astype(int))[:30]]
    adata = adata[:, np.sort(genes)].copy()
    adata = adata[adata.X.sum(1).A1 > 0].copy()
    kept = np.concatenate([np.flatnonzero(adata.obs["batch"] == b)[: N_CELLS // len(BATCHES)] for b in BATCHES])
    arrays = {"counts": adata.X[kept].toarray().astype(np.uint16), "batch": np.repeat(range(3), 4).astype(np.uint8)}
    variants = [replace(variant, n_hidden=8, n_latent=3) for variant in ISSUE_VARIANTS]
    for i, variant in enumerate(variants):
        model = train(adata, variant, batch_key="batch")
        tensors = {name: tensor[kept] for name, tensor in all_cells(model).items()}
        answers = ask_peer(model.module, tensors, variant.likelihood)
        answers = answers._replace(nll=nll64(answers, tensors["X"]))
        unused = UNUSED[variant.likelihood] + (() if variant.library == "latent" else ("l_encoder",))
        state = {k: v for k, v in model.module.state_dict().items() if not any(name in k for name in unused)}
        arrays |= {f"state{i}": _pack(state), f"answers{i}": _pack(answers._asdict())}
    text = {"variants": json.dumps([asdict(v) for v in variants]), "made_by": f"scvi-tools {scvi.__version__}"}
    np.savez_compressed(path, **text, **arrays)


def _pack(tensors: dict[str, torch.Tensor | None]) -> np.ndarray:
    """Tensors as one record: an entry of the archive costs more than its few numbers."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items() if tensor is not None}
    record = np.zeros((), dtype=[(name, a.dtype, a.shape) for name, a in arrays.items()])
    for name, array in arrays.items():
        record[name] = array
    return record


def _unpack(record: np.ndarray) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(record[name])) for name in record.dtype.names}


if __name__ == "__main__":
    write()
