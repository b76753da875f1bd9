"""The four dispersions, and that each becomes `gene` where it should (U9)."""

import math

import pytest
import torch
from modules.small_models import DIMS, all_cells, build, spec, table

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.likelihoods import Dispersion
from scanpy_scvi.training import seeded

KINDS = ("gene", "gene-batch", "gene-label", "gene-cell")


def make(kind):
    with seeded(0):
        return Dispersion(DIMS, kind=kind, n_hidden=4)


@pytest.mark.parametrize(("kind", "n_rows"), [("gene", 1), ("gene-batch", 3), ("gene-label", 2), ("gene-cell", 37)])
@torch.no_grad()
def test_each_cell_reads_its_own_row(kind, n_rows):
    cells, hidden = all_cells(table()), torch.randn(37, 4)
    part = make(kind)
    log_theta = part(hidden, cells)
    assert log_theta.table.shape == (n_rows, 23)
    wanted = {
        "gene": lambda n: part.log_theta[0],
        "gene-batch": lambda n: part.log_theta[cells.batch[n]],
        "gene-label": lambda n: part.log_theta[cells.labels[n]],
        "gene-cell": lambda n: part.head.weight @ hidden[n] + part.head.bias,
    }[kind]
    per_cell = log_theta.per_cell().expand(37, 23)
    for n in range(37):
        torch.testing.assert_close(per_cell[n], wanted(n))
        torch.testing.assert_close(log_theta.table[log_theta.row[n]], wanted(n))


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
@pytest.mark.parametrize("kind", KINDS[1:])
@torch.no_grad()
def test_kinds_equal_gene_where_groups_are_merged_or_the_head_is_zero(likelihood, kind):
    models = {k: build(spec(likelihood=Part(likelihood, {"dispersion": k}))) for k in ("gene", kind)}
    state, log_theta = models["gene"].state_dict(), torch.linspace(-2, 3, 23)
    models[kind].load_state_dict({k: v for k, v in state.items() if "log_theta" not in k}, strict=False)
    if kind == "gene-cell":
        models[kind].likelihood.dispersion.head.weight.zero_()
    for model in models.values():
        model.likelihood.set_log_theta(log_theta)
    cells = all_cells(table())
    nll = [
        model.likelihood.nll(model.decode(torch.ones(37, 3), cells), cells.log_total, cells)
        for model in models.values()
    ]
    torch.testing.assert_close(*nll, rtol=1e-6, atol=0)  # a row of theta that cells share is computed otherwise


@pytest.mark.parametrize("kind", ["gene-batch", "gene-label"])
@torch.no_grad()
def test_one_group_is_gene(kind):
    one = type(DIMS)(n_genes=23, n_batches=1, n_labels=1)
    with seeded(0):
        part = Dispersion(one, kind=kind, n_hidden=4)
    assert part.log_theta.shape == (1, 23)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_start_sets_every_row(kind):
    part, start = make(kind), torch.full((23,), math.log(5.0))
    part.set_log_theta(start)
    hidden = torch.zeros(37, 4)  # a network's head starts from its bias
    log_theta = part(hidden, all_cells(table())).per_cell().expand(37, 23)
    torch.testing.assert_close(log_theta, start.expand(37, 23))
