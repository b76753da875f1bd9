"""A loss that is infinite or NaN: back to the last good state at a lower rate, or an error that says where."""

import numpy as np
import pytest
import torch
from fingerprint import fingerprint

import scanpy_scvi as sv
from scanpy_scvi.modules.likelihoods import NegativeBinomial
from scanpy_scvi.training import NonFiniteLoss, fit
from scanpy_scvi.training.fit import RESTART_FACTOR, _Fit
from scanpy_scvi.training.optimizer import AveragedAdam

SICK = 17


def copied(state):
    return {name: tensor.clone() for name, tensor in state.items()}


def equal(state, other):
    return all(torch.equal(value, other[name]) for name, value in state.items())


@pytest.fixture
def sick_cell(monkeypatch):
    """Make the likelihood of one cell infinite, in whatever minibatch it is."""
    nll = NegativeBinomial.nll
    calls = []

    def broken(self, output, log_library, cells):
        calls.append(self.training)
        infinite = torch.where(cells.index == SICK, torch.inf, 0.0)
        return nll(self, output, log_library, cells) + infinite

    monkeypatch.setattr(NegativeBinomial, "nll", broken)
    return calls


def test_a_rate_that_is_too_high_is_lowered_until_the_fit_runs(data, make_model, config):
    result = fit(make_model(), data.table, config(learning_rate=100, max_epochs=6, warmup_steps=0, max_restarts=6))
    n = result.convergence.n_restarts
    assert 1 <= n <= 6
    assert len(result.history) == 6
    assert np.isfinite(np.array(result.history)).all()
    np.testing.assert_allclose(result.history[-1].learning_rate, 100 * RESTART_FACTOR**n)


def test_an_epoch_starts_again_from_the_state_before_it(data, make_model, config, monkeypatch):
    model, good, seen = make_model(), [], []
    step = _Fit._step

    def breaks_once(self, rows, learning_rate, kl_weight):
        epoch = len(self.history)
        if epoch == 2 and len(seen) == 2:  # the third step of the third epoch ruins everything
            with torch.no_grad():
                for weight in self.model.parameters():
                    weight.fill_(torch.nan)
            self.average.update()
        if epoch == 2:
            state = copied(dict(enumerate([*self.model.parameters(), *self.optimizer.state()])))
            seen.append((state, self.average.n_steps))
        return step(self, rows, learning_rate, kl_weight)

    monkeypatch.setattr(_Fit, "_step", breaks_once)
    result = fit(model, data.table, config(max_epochs=4), on_epoch=good.append)
    assert result.convergence.n_restarts == 1
    assert len(seen) == 3 + 4
    first, again = seen[0], seen[3]
    assert equal(first[0], again[0])
    assert first[1] == again[1]
    assert [r.epoch for r in good] == [1, 2, 3, 4]
    rates = [r.learning_rate for r in good]
    assert rates[2] < rates[1]
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("validation_size", [0, 0.1])
@pytest.mark.parametrize("last_epoch", [1, 3])
def test_weights_broken_by_the_last_step_of_an_epoch_are_noticed(
    validation_size, last_epoch, data, make_model, config, monkeypatch
):
    model, broken = make_model(), []
    step = AveragedAdam.step

    def breaks_once(self, learning_rate, add_up):
        broken.append(None)
        if len(broken) == last_epoch * steps_per_epoch:
            model.decoder.logits.bias.grad[3] = torch.nan
        step(self, learning_rate, add_up)

    settings = config(max_epochs=3, validation_size=validation_size)
    steps_per_epoch = 4
    monkeypatch.setattr(AveragedAdam, "step", breaks_once)
    result = fit(model, data.table, settings)
    assert result.convergence.n_restarts == 1
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert len(broken) == (3 + 1) * steps_per_epoch


def test_gradients_that_are_not_finite_are_noticed(data, make_model, config, monkeypatch):
    model = make_model()
    handle = model.encoder.mean.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NonFiniteLoss) as caught:
        fit(model, data.table, config())
    handle.remove()
    assert "weights" in caught.value.culprit.term


@pytest.mark.parametrize("validation_size", [0, 0.1, 0.9])
def test_the_culprit_is_named_whether_it_is_trained_on_or_held_out(
    validation_size, data, simulated, make_model, config, sick_cell
):
    with pytest.raises(NonFiniteLoss) as caught:
        fit(make_model(), data.table, config(validation_size=validation_size))
    culprit = caught.value.culprit
    counts = simulated.X[SICK].toarray().ravel()
    assert culprit.cell == SICK
    assert counts[culprit.gene] == counts.max()
    assert culprit.batch == simulated.obs["batch"].cat.codes.iloc[SICK]
    assert culprit.term == "nll"


def test_restarts_have_an_end(data, make_model, config, sick_cell):
    with pytest.raises(NonFiniteLoss):
        fit(make_model(), data.table, config(validation_size=0, max_restarts=2, batch_size=10**6))
    assert len(sick_cell) == 1 + 2


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("batch_key", [None, "batch"])
def test_the_error_names_cell_gene_and_batch_and_nothing_is_written(masked, batch_key, adata, sick_cell):
    adata.obs_names = [f"barcode-{i}" for i in range(adata.n_obs)]
    adata.var["chosen"] = np.arange(adata.n_vars) % 3 > 0
    before = fingerprint(adata)
    with pytest.raises(FloatingPointError) as caught:
        sv.tl.scvi(adata, batch_key, mask_var="chosen" if masked else None, likelihood="nb", progress=False)
    message = str(caught.value)
    counts = adata[SICK, adata.var["chosen"] if masked else slice(None)].to_df().iloc[0]
    assert "infinite or NaN" in message
    assert f"cell 'barcode-{SICK}'" in message
    assert any(f"gene {gene!r}" in message for gene in counts.index[counts == counts.max()])
    assert (f"batch {adata.obs['batch'].iloc[SICK]!r}" in message) == (batch_key is not None)
    assert "3 restarts" in message
    assert fingerprint(adata) == before
