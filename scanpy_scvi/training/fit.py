"""The training loop."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch

from ..modules.precision import reduced_precision
from .batches import CellTable, hold_out, minibatches
from .diagnose import Culprit, NonFiniteLoss, diagnose
from .dispersion import can_settle, settle_dispersion
from .fit_state import Begun, FitState, start_id
from .history import Convergence, EpochRecord, judge
from .optimizer import AveragedAdam, Snapshot
from .random import seeded
from .ranks import Ranks
from .represent import improved, represent
from .resident import resident
from .schedule import Schedule
from .shuffle import training_cells
from .sources import keep
from .start import start_from_data, start_penalties
from .threads import team_of_torch_threads
from .together import check_all_go_on, check_together, said_by_first

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..modules.vae import VAE, Bound
    from .checkpoint import Checkpoints
    from .config import TrainingConfig
    from .resident import ResidentTable
    from .shuffle import Minibatch

EVALUATION_BATCH = 1024
RESTART_FACTOR = 0.1
FOLLOWING_STEPS, FINAL_STEPS = 5, 20
"""Steps of cells' own latent states, where a model has such: of held-out cells after every epoch, of all at the end."""


class FitResult(NamedTuple):
    """What a fit leaves behind beside the weights in the model."""

    history: list[EpochRecord]
    convergence: Convergence
    validation_rows: np.ndarray
    notes: Sequence[float] = ()
    """What was noted after every epoch."""


class MeanBound(NamedTuple):
    """Bound of a set of cells, nats per cell."""

    elbo: float
    kl: float


def fit(
    model: VAE,
    data: CellTable,
    config: TrainingConfig,
    *,
    device: torch.device | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_interrupt: Literal["raise", "keep"] = "raise",
    ranks: Ranks = Ranks(),  # noqa: B008  # immutable
    checkpoints: Checkpoints | None = None,
    note: Callable[[], float] | None = None,
) -> FitResult:
    """Fit a model in place and leave it in evaluation mode with its best weights.

    Parameters
    ----------
    model
        The model; its weights are the start.
    data
        All cells.
    config
        Settings.
    device
        Where to compute; the CPU by default.
    on_epoch
        Called after every epoch with its record.
    on_interrupt
        What a KeyboardInterrupt does: pass it on, or end the fit with the best weights so far.
    ranks
        The processes that fit this model together, each with all of `data`; all must call this alike, and all get the
        same result.
    checkpoints
        Where states are left from time to time, to go on from. Where there is one of this fit, it goes on from there,
        to the same bits; torch's random state, which has to be lent by :func:`.seeded`, is set to what it was.
    note
        Called after every epoch; the result has the numbers that it returned, also those from before a state.

    Returns
    -------
    History, verdict, the rows of the held-out cells, and what was noted.

    Raises
    ------
    NonFiniteLoss
        When the loss stays infinite or NaN after `config.max_restarts` restarts at a lower rate.
    ValueError
        For what several processes cannot do together, and for a state that is damaged or of another fit.
    """
    check_together(ranks, model, data, config, on_interrupt)
    with team_of_torch_threads():
        here = device or torch.device("cpu")
        return _Fit(model, data, config, here, on_epoch, ranks, checkpoints, note).run(on_interrupt)


class _Fit:
    """State of one fit."""

    def __init__(
        self,
        model: VAE,
        data: CellTable,
        config: TrainingConfig,
        device: torch.device,
        on_epoch: Callable[[EpochRecord], None] | None,
        ranks: Ranks,
        checkpoints: Checkpoints | None = None,
        note: Callable[[], float] | None = None,
    ) -> None:
        self.checkpoint = None if checkpoints is None else checkpoints.next_fit(start_id(model))
        state = None if self.checkpoint is None else self.checkpoint.read()  # refused before anything is done
        check_all_go_on(ranks, found=state is not None)
        self.model = model.to(device)
        self.config = config
        self.device = device
        self.on_epoch, self.note = on_epoch, note
        self.ranks = ranks
        self.rng = np.random.default_rng(config.random_state)
        self.train_rows, self.validation_rows = hold_out(data.n_cells, config.validation_size, self.rng)
        judges = self.validation_rows if len(self.validation_rows) else self.train_rows[:EVALUATION_BATCH]
        data = replace(data, counts=keep(data.counts, judges))
        self.data = resident(data, device)
        self.schedule = Schedule(config, steps_per_epoch=len(list(minibatches(self.train_rows, config.batch_size))))
        if config.start_from_data:
            start_from_data(self.model, data)
        self.n_observed = data.counts.n_entries / data.n_cells
        start_penalties(self.model, data, device)
        ranks.broadcast_(t.detach() for t in (*self.model.parameters(), *self.model.buffers()))
        self.optimizer = AveragedAdam(self.model, config, self.model.encoder.representations())
        self.average = self.optimizer.average
        self.before_epoch = Snapshot(self.optimizer)
        self.history: list[EpochRecord] = []
        self.notes: list[float] = []
        self.best_goal = -np.inf
        self.best_result = [t.clone() for t in self.optimizer.averaged_result()]
        """Averaged weights of the best bound so far."""
        self.n_restarts = 0
        self.begun = None if state is None else state.restore(self, is_first=not ranks.rank)
        """The epoch that a state was left in, until it goes on."""

    def run(self, on_interrupt: Literal["raise", "keep"]) -> FitResult:
        interrupted = False
        try:
            while len(self.history) < self.config.max_epochs and not self.schedule.plateau:
                self._epoch_with_restarts()
        except KeyboardInterrupt:
            if on_interrupt == "raise" or not self.history:
                raise
            interrupted = True
        kept = self.best_result if self.config.keep_best or interrupted else self.optimizer.averaged_result()
        torch._foreach_copy_(self.optimizer.result(), kept)
        self.optimizer.release()
        self.model.eval()
        self.model.prior.settle()
        self._place_all()
        settled = self._settle_dispersion()
        self.ranks.check_equal(self.optimizer.result())
        convergence = judge(
            self.history,
            plateau=self.schedule.plateau,
            too_short=self.schedule.patience(len(self.history)) > 0,
            latent_variance=self._latent_variance(),
            tolerance=self.config.min_improvement,
            n_restarts=self.n_restarts,
            interrupted=interrupted,
            keep_best=self.config.keep_best,
            scale_is_set=self.model.prior.sets_scale,
            ceiling=self._ceiling(),
            kl_weight=self.config.kl_weight,
        )
        if settled is not None:
            convergence = replace(convergence, best_elbo=settled)
        return FitResult(self.history, convergence, self.validation_rows, self.notes)

    def _settle_dispersion(self) -> float | None:
        """Take the dispersions that training cells ask for, unless held-out cells speak against it; their bound."""
        if not self.config.settle_dispersion or not can_settle(self.model, self.train_rows):
            return None
        parameters: list[torch.Tensor] = list(self.model.likelihood.parameters())
        before = [p.detach().clone() for p in parameters]
        judges = self.validation_rows if len(self.validation_rows) else self.train_rows[:EVALUATION_BATCH]
        bound = self._bound(judges)
        settle_dispersion(self.model, self.data, self.train_rows, self.device)
        settled = self._bound(judges)
        if settled > bound:
            return settled if len(self.validation_rows) else None  # others are judged by their mean over an epoch
        with torch.no_grad():
            torch._foreach_copy_(parameters, before)
        return None

    def _epoch_with_restarts(self) -> None:
        """Run one epoch; after a non-finite loss go back to its start and try again at a lower rate."""
        if self.begun is None:
            self.before_epoch.take()
        while True:
            try:
                record = self._epoch(len(self.history))
            except NonFiniteLoss:
                if self.n_restarts >= self.config.max_restarts:
                    raise
                self.n_restarts += 1
                self.schedule.scale *= RESTART_FACTOR
                self.before_epoch.restore()
            else:
                break
        goal = record.goal(self.config.kl_weight)
        self._keep_if_best(goal)
        noted = [] if self.note is None else [self.note()]
        self.history.append(record)  # after its weights are safe, as Ctrl-C may come at any line
        self.notes += noted
        self.schedule.end_epoch(record.epoch - 1, goal, self._ceiling())
        self._save_if_due()
        if self.on_epoch is not None:
            self.on_epoch(record)

    def _save_if_due(self, begun: Begun | None = None) -> None:
        """Leave a state to go on from, within the epoch that has `begun` or between two."""
        if self.checkpoint is not None:
            self.checkpoint.save_if_due(lambda: FitState.of(self, begun))

    def _ceiling(self) -> float:
        """Bound that an exact reconstruction would have."""
        return self.model.likelihood.ceiling(self.n_observed)

    def _keep_if_best(self, goal: float) -> None:
        """Remember the averaged weights where their bound, less penalties, is the best so far."""
        if goal > self.best_goal:
            torch._foreach_copy_(self.best_result, self.optimizer.averaged_result())
            self.best_goal = goal

    def _epoch(self, epoch: int) -> EpochRecord:
        self.model.train()
        begun, self.begun = self.begun or Begun(self.rng.bit_generator.state), None
        of_epoch = training_cells(self.data, self.train_rows, self.config.batch_size, self.rng, self.ranks)
        with closing(of_epoch) as parts:
            for step, part in enumerate(parts):
                if step < begun.step:
                    continue  # done before the state was left
                bound = self._step(part, self.schedule.rate(epoch, step), self.schedule.kl_weight(epoch, step))
                begun.add(_sums(bound), 0.0 if bound.penalty is None else part.n_cells * bound.penalty.item())
                if not self.ranks.together:  # the sums of others are with them
                    self._save_if_due(begun)
        self.ranks.sum_(begun.sums)
        trained = _mean(begun.sums, len(self.train_rows))
        held_out = self._check(trained)
        return EpochRecord(
            epoch=epoch + 1,
            train_elbo=trained.elbo,
            validation_elbo=held_out.elbo,
            kl=held_out.kl,
            kl_weight=self.schedule.kl_weight(epoch, step),
            learning_rate=self.schedule.rate(epoch, step),
            penalty=begun.priced / len(self.train_rows),
            train_kl=trained.kl,
        )

    def _check(self, trained: MeanBound) -> MeanBound:
        """Bound of the held-out cells; without any, training cells tell whether the last step broke the weights."""
        if len(self.validation_rows):
            return self._evaluate(self.validation_rows)
        self._evaluate(self.train_rows[:EVALUATION_BATCH])
        return trained._replace(elbo=np.nan)

    def _step(self, part: Minibatch, learning_rate: float, kl_weight: float) -> Bound:
        """One optimiser step; return the terms of the bound before it."""
        cells = part.cells.to(self.device)
        with reduced_precision(allowed=self.config.mixed_precision), self.ranks.sharing(part.n_cells):
            bound = self.model(cells)
        loss = self._loss(bound, kl_weight)
        culprit = None if math.isfinite(loss.item()) else diagnose(self.model, cells, bound)
        if culprit is not None and not self.ranks.together:
            raise NonFiniteLoss(culprit)
        loss.backward(self.ranks.weight(loss, part.n_cells))
        self.optimizer.step(learning_rate, partial(self._add_up, culprit))
        return bound

    def _add_up(self, culprit: Culprit | None, gradients: list[torch.Tensor]) -> None:
        """Make gradients those of the whole minibatch; all processes stop where one has a culprit."""
        if not self.ranks.together:
            return
        n_broken = torch.tensor(float(culprit is not None), device=self.device)
        self.ranks.sum_(*gradients, n_broken)
        if n_broken.item() > 0:
            raise NonFiniteLoss(said_by_first(self.ranks, culprit))

    def _loss(self, bound: Bound, kl_weight: float) -> torch.Tensor:
        """Mean loss of a minibatch, with what penalties add, and with its cells' share of the price of the weights."""
        loss = bound.loss(kl_weight).mean()
        if bound.penalty is not None:
            loss = loss + bound.penalty
        price = self.model.weight_penalty()
        return loss if price is None else loss + price / len(self.train_rows)

    @torch.no_grad()
    def _evaluate(self, rows: np.ndarray) -> MeanBound:
        """Bound of cells under the averaged weights, with the same noise in every epoch."""
        self.model.eval()
        sums, culprit = torch.zeros(3, dtype=torch.float64), None
        with seeded(self.config.random_state, self.device), self.average.swapped_in():
            self._follow(rows)
            for chunk in minibatches(rows, EVALUATION_BATCH):
                mine = self.ranks.mine(chunk)
                if culprit is not None or not len(mine):  # others may have cells where there are few
                    continue
                cells = self.data.take(mine).to(self.device)
                with self.ranks.sharing(len(chunk)):
                    bound = self.model(cells)
                sums += _sums(bound)
                if not torch.isfinite(sums).all():
                    culprit = diagnose(self.model, cells, bound)
        self.ranks.sum_(sums)
        if not torch.isfinite(sums).all():
            raise NonFiniteLoss(said_by_first(self.ranks, culprit))
        return _mean(sums, len(rows))

    @torch.no_grad()
    def _bound(self, rows: np.ndarray) -> float:
        """Bound of cells under the weights as they are, with the same noise every time."""
        sums = torch.zeros(3, dtype=torch.float64)
        with seeded(self.config.random_state, self.device):
            for chunk in minibatches(rows, EVALUATION_BATCH):
                sums += _sums(self.model(self.data.take(chunk).to(self.device)))
        return _mean(sums, len(rows)).elbo

    def _follow(self, rows: np.ndarray) -> None:
        """Move the own latent states of held-out cells, where they have such, some steps after the weights."""
        if self.optimizer.rows is not None and rows is self.validation_rows:
            start = self.optimizer.rows.table.detach()
            self.optimizer.rows.put(*improved(self.model, self.data, rows, start, self.device, n_steps=FOLLOWING_STEPS))

    def _place_all(self) -> None:
        """Give every cell its best latent state under the final weights, where it has one of its own."""
        table = self.model.encoder.representations()
        if table is None:
            return
        rows = np.arange(self.data.n_cells)
        found = improved(self.model, self.data, rows, table.detach(), self.device, n_steps=FINAL_STEPS)
        with torch.no_grad():
            table[found.rows] = found.z
            if len(self.validation_rows):
                table[torch.from_numpy(self.validation_rows)] = represent(
                    self.model, self.data, self.validation_rows, device=self.device
                )

    @torch.no_grad()
    def _latent_variance(self) -> np.ndarray:
        """Variance of the posterior means over a sample of cells, per latent dimension."""
        rows = np.sort(self.rng.permutation(self.data.n_cells)[: 10 * EVALUATION_BATCH])
        return encoded_means(self.model, self.data, rows, self.device).var(0).cpu().numpy()


def encoded_means(model: VAE, data: CellTable | ResidentTable, rows: np.ndarray, device: torch.device) -> torch.Tensor:
    """Posterior means of some cells, (n_cells, n_latent)."""
    parts = [model.encode(data.take(part).to(device)).mean for part in minibatches(rows, EVALUATION_BATCH)]
    return torch.cat(parts)


def _sums(bound: Bound) -> torch.Tensor:
    """Terms of the bound summed over cells, (3,), float64."""
    return bound.terms().detach().sum(1).cpu().double()


def _mean(sums: torch.Tensor, n_cells: int) -> MeanBound:
    """Mean over cells of the unweighted bound."""
    _, kl, _ = terms = (sums / n_cells).tolist()
    return MeanBound(-sum(terms), kl)
