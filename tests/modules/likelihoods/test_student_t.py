"""Heavy-tailed noise on log-normalised counts against SciPy."""

import numpy as np
import pytest
import torch
from modules.small_models import DIMS, all_cells, build, spec, table
from scipy import stats

from scanpy_scvi.modules import Part
from scanpy_scvi.modules.likelihoods.student_t import StudentT
from scanpy_scvi.modules.log_normalized import log_normalized
from scanpy_scvi.numerics.sparse import to_dense
from scanpy_scvi.training import TrainingConfig, fit, seeded

TOTAL = 50.0


def decoded(**options):
    model, cells = build(spec(likelihood=Part("student_t", {"total": TOTAL, **options}))), all_cells(table())
    with seeded(1), torch.no_grad():
        model.likelihood.log_sd.normal_()
        model.likelihood.dof_logits.normal_(std=3)
        return model, cells, model.decode(model.encode(cells).mean, cells)


@torch.no_grad()
def test_density_is_that_of_scipy():
    model, cells, output = decoded(least_sd=0.1)
    dof, sd = (t.double().numpy() for t in (model.likelihood.dof(), model.likelihood.sd()))
    x = to_dense(cells.counts.rows(), DIMS.n_genes).astype(np.float64)
    y = np.log1p(TOTAL * x / np.exp(cells.log_total.double().numpy())[:, None])
    expected = -stats.t.logpdf(y, dof, output.params.double().numpy(), sd).sum(1)
    np.testing.assert_allclose(model.likelihood.nll(output, cells.log_total, cells).numpy(), expected, rtol=1e-5)


@torch.no_grad()
def test_the_ceiling_is_the_density_of_an_exact_reconstruction():
    model, cells, output = decoded()
    y = log_normalized(cells.counts, cells.log_total, TOTAL)
    nll = model.likelihood.nll(output._replace(params=y), cells.log_total, cells)
    torch.testing.assert_close(nll, torch.full_like(nll, -model.likelihood.ceiling(0.0)), rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_limits_of_its_parameters():
    part = StudentT(DIMS, n_hidden=8, least_sd=0.3)
    assert part.dof().mean().item() == pytest.approx(5)
    part.log_sd.fill_(-50)
    for logit, limit in ((-50, 0.1), (50, 10)):
        part.dof_logits.fill_(logit)
        torch.testing.assert_close(part.dof(), torch.full((DIMS.n_genes,), float(limit)))
    torch.testing.assert_close(part.sd(), torch.full((DIMS.n_genes,), 0.3))
    with pytest.raises(ValueError, match="least_sd"):
        StudentT(DIMS, n_hidden=8, least_sd=0.0)


@torch.no_grad()
def test_what_is_drawn_has_the_tails_of_the_model():
    """Quantiles of the logarithms of shares, where shares stay far from zero and their sum hardly varies."""
    dims_of_t, n = 4.0, 200
    model, cells, output = decoded(least_sd=0.05)
    model.likelihood.log_sd.fill_(-50)
    model.likelihood.dof_logits.fill_(np.log((dims_of_t - 0.1) / (10 - dims_of_t)))
    model.likelihood.total = 1e4
    wide = output._replace(params=torch.full_like(output.params, 5.0))
    library = torch.full_like(cells.log_total, np.log(1e7))
    with seeded(0):
        drawn = torch.stack([model.likelihood.sample(wide, library, cells) for _ in range(n)]).double()
    logs = (drawn / 1e7 * DIMS.n_genes).log().numpy().ravel()
    expected = stats.t.ppf([0.01, 0.1, 0.9, 0.99], dims_of_t, scale=0.05)
    np.testing.assert_allclose(np.quantile(logs, [0.01, 0.1, 0.9, 0.99]), expected, rtol=0.15)


@torch.no_grad()
def test_the_heaviest_tails_give_finite_counts():
    model, cells, output = decoded(least_sd=3.0)
    model.likelihood.dof_logits.fill_(-50)
    with seeded(0):
        drawn = model.likelihood.sample(output, cells.log_total, cells)
    assert torch.isfinite(drawn).all()
    assert (drawn.sum(1) <= cells.log_total.exp() + DIMS.n_genes).all()


def test_a_silent_gene_does_not_break_the_fit():
    """Its scale goes to the least one, and no further."""
    data = table(60)
    with seeded(0):
        model = build(spec(likelihood=Part("student_t", {"total": TOTAL})))
        fit(model, data, TrainingConfig(max_epochs=50, early_stopping=False))
    least = model.likelihood.least_sd
    assert (model.likelihood.sd() >= least).all()
    assert torch.isfinite(model.likelihood.sd()).all()
