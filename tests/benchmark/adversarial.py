"""Does a critic make generated cells more real? Adversarial training of a decoder that was fitted before.

    python tests/benchmark/adversarial.py mouse_bladder cell_type --seeds 1

`tl.scvi` is fitted to a half of the cells of the largest type, and its decoder and dispersions then go on against a
critic: Wasserstein distance with a gradient penalty (Gulrajani et al. 2017, arXiv 1704.00028), as scGAN has it (Marouf
et al. 2020). Latent states and libraries are drawn from the density of `tl.sample`; counts have gradients through the
Gamma's reparametrisation and a straight-through Poisson. Each area is the mean of a forest's over four splits.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from generation import cells_of
from sklearn.decomposition import PCA
from torch import nn

import scanpy_scvi as sv
from scanpy_scvi.metrics.two_samples import forest_auc
from scanpy_scvi.modules.likelihoods.draws import nb_draw
from scanpy_scvi.modules.likelihoods.formula import log_means
from scanpy_scvi.numerics.sparse import to_dense
from scanpy_scvi.posterior.generation import LatentCells, draw_counts, draw_latent, new_cells
from scanpy_scvi.store.load import load
from scanpy_scvi.training.random import seeded

if TYPE_CHECKING:
    import anndata as ad

    from scanpy_scvi.modules.vae import VAE
    from scanpy_scvi.training.batches import CellTable

BETAS = (0.5, 0.9)
PENALTY = 10.0
"""Price of a slope that is not one (Gulrajani et al. 2017)."""
HIDDEN = (128,)
LEAK = 0.2
AVERAGED = 0.995
"""What a step leaves of the moving average of the generator's weights."""
POOL = 20_000
"""Latent states to draw from."""
LEAST_SPREAD = 0.05


def nb_draw_with_gradient(log_mean: torch.Tensor, log_theta: torch.Tensor) -> torch.Tensor:
    """Counts x ~ Poisson(w), w ~ Gamma, with the gradient of w; that of their mean is exact, as E[x] = E[w]."""
    log_theta = log_theta.clamp(max=8).expand_as(log_mean)
    w = torch._standard_gamma(log_theta.exp()) * (log_mean - log_theta).exp()
    return w + (torch.poisson(w.detach()) - w.detach())


class AdversarialConfig(NamedTuple):
    """Settings of adversarial training."""

    n_steps: int
    n_critic: int
    batch_size: int
    learning_rate: float
    random_state: int


class View:
    """What a critic sees of counts: y, scaled to one total, over each gene's spread, and log(1 + y) over that of all.

    Differences in the first are those of strong counts; in the second, of which genes are there at all.
    """

    def __init__(self, counts: torch.Tensor) -> None:
        self.total = counts.sum(1).mean()
        raw, log = self._scaled(counts)
        self.raw_mean, self.raw_spread = raw.mean(0), raw.std(0) + LEAST_SPREAD
        self.log_mean, self.log_spread = log.mean(0), log.var(0).sum().sqrt() / 10

    def _scaled(self, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raw = counts * (self.total / counts.sum(1, keepdim=True).clamp(min=1))
        return raw, torch.log1p(raw)

    def __call__(self, counts: torch.Tensor) -> torch.Tensor:
        """Both beside each other, (n, 2 n_genes)."""
        raw, log = self._scaled(counts)
        return torch.cat([(raw - self.raw_mean) / self.raw_spread, (log - self.log_mean) / self.log_spread], 1)


def gradient_penalty(critic: nn.Module, real: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    r"""Mean of :math:`(\lVert \nabla_x f(x) \rVert - 1)^2` at points x between real and made ones."""
    share = torch.rand(len(real), 1, device=real.device)
    between = (share * real + (1 - share) * made).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.norm(dim=1) - 1).square().mean()


class Generator:
    """Counts of new cells, from latent states and libraries that were drawn before."""

    def __init__(self, model: VAE, table: CellTable, pool: LatentCells, device: torch.device) -> None:
        self.model, self.table, self.pool, self.device = model, table, pool, device

    def counts(self, rows: np.ndarray, *, gradient: bool) -> torch.Tensor:
        """Draw counts at some of the latent states."""
        z, log_library = (torch.from_numpy(a[rows]).to(self.device) for a in (self.pool.z, self.pool.log_library))
        cells = self.table.take(self.pool.donors[rows], counts=False).to(self.device)
        with torch.set_grad_enabled(gradient):
            output = self.model.decode(z, cells)
            mean, log_theta = log_means(output.params, log_library), self.model.likelihood.log_theta(output, cells)
            return (nb_draw_with_gradient if gradient else nb_draw)(mean, log_theta)


def train_adversarially(model: VAE, table: CellTable, config: AdversarialConfig, device: torch.device) -> np.ndarray:
    """Train decoder and dispersions of a fitted model in place; the critic's distance at each step is returned."""
    latent, use = draw_latent(model, table, random_state=config.random_state, device=device)
    rng = np.random.default_rng(config.random_state)
    pool = new_cells(latent, use, np.zeros(table.n_cells, np.int64), {0: POOL}, rng).cells
    generator = Generator(model.eval(), table, pool, device)
    real = torch.from_numpy(to_dense(table.counts, table.n_genes, log1p=False)).to(device)
    with seeded(config.random_state, device), torch.enable_grad():
        return _Game(generator, real, config, rng).run()


class _Game:
    """State of one training: critic and generator in turns (Arjovsky et al. 2017; Gulrajani et al. 2017)."""

    def __init__(
        self, generator: Generator, real: torch.Tensor, config: AdversarialConfig, rng: np.random.Generator
    ) -> None:
        self.generator, self.config, self.rng = generator, config, rng
        self.view = View(real)
        self.real = self.view(real)
        self.critic = _critic(self.real.shape[1]).to(real.device)
        model = generator.model
        self.weights = [*model.decoder.parameters(), *model.likelihood.parameters()]
        self.average = [w.detach().clone() for w in self.weights]
        adam = {"lr": config.learning_rate, "betas": BETAS, "amsgrad": True}
        self.optimizers = torch.optim.Adam(self.critic.parameters(), **adam), torch.optim.Adam(self.weights, **adam)

    def run(self) -> np.ndarray:
        """Play all steps at a rate that falls to zero, and end with the averaged weights."""
        distances = np.empty(self.config.n_steps)
        for step in range(self.config.n_steps):
            for optimizer in self.optimizers:
                optimizer.param_groups[0]["lr"] = self.config.learning_rate * (1 - step / self.config.n_steps)
            for _ in range(self.config.n_critic):
                distances[step] = self._improve_critic()
            self._improve_generator()
            with torch.no_grad():
                live = [w.detach() for w in self.weights]
                torch._foreach_lerp_(self.average, live, 1 - min(AVERAGED, (1 + step) / (10 + step)))
        with torch.no_grad():
            torch._foreach_copy_([w.detach() for w in self.weights], self.average)
        for weight in self.weights:
            weight.grad = None
        return distances

    def _made(self, *, gradient: bool) -> torch.Tensor:
        rows = self.rng.integers(len(self.generator.pool.donors), size=self.config.batch_size)
        return self.view(self.generator.counts(rows, gradient=gradient))

    def _improve_critic(self) -> float:
        rows = self.rng.integers(len(self.real), size=self.config.batch_size)
        real, made = self.real[torch.from_numpy(rows).to(self.real.device)], self._made(gradient=False)
        distance = self.critic(real).mean() - self.critic(made).mean()
        self._step(0, PENALTY * gradient_penalty(self.critic, real, made) - distance)
        return distance.item()

    def _improve_generator(self) -> None:
        self._step(1, -self.critic(self._made(gradient=True)).mean())

    def _step(self, which: int, loss: torch.Tensor) -> None:
        optimizer = self.optimizers[which]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _critic(n_inputs: int) -> nn.Sequential:
    """Network with one output; without batch normalisation, as the penalty is on the slope at each point by itself."""
    layers: list[nn.Module] = []
    for below, above in pairwise((n_inputs, *HIDDEN)):
        layers += [nn.Linear(below, above), nn.LeakyReLU(LEAK)]
    return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))


def areas(real: np.ndarray, other: np.ndarray) -> str:
    """Area under the ROC curve of forests, on normalised counts and on their log."""
    n = min(len(real), len(other))
    raw = [2e4 * x[:n] / x[:n].sum(1, keepdims=True) for x in (real, other)]
    found = []
    for views in (raw, [np.log1p(x) for x in raw]):
        scores = PCA(50, random_state=0).fit_transform(np.concatenate(views))
        splits = [forest_auc(scores[:n], scores[n:], n_trees=150, random_state=seed) for seed in range(4)]
        found.append(f"{np.mean(splits):.3f}")
    return " / ".join(found)


def generated(model: VAE, table: CellTable, n: int, seed: int) -> np.ndarray:
    """New cells."""
    device = torch.device("cpu")
    latent, use = draw_latent(model, table, random_state=seed, device=device)
    cells = new_cells(latent, use, np.zeros(table.n_cells, np.int64), {0: n}, np.random.default_rng(seed)).cells
    return draw_counts(model, table, cells, random_state=seed, device=device).toarray()


def compare(adata: ad.AnnData, seed: int, n_steps: int) -> None:
    """Print the areas of one split, before and after."""
    order = np.random.default_rng(seed).permutation(adata.n_obs)
    half = adata.n_obs // 2
    train, test = adata[order[:half]].copy(), adata[order[half:]].X.toarray()
    sv.tl.scvi(train, normalized=False, progress=False, random_state=seed)
    fitted = load(train, "scvi")
    table = fitted.read(train)
    print(f"seed {seed}: real {areas(test, train.X.toarray())}", flush=True)
    print(f"seed {seed}: before {areas(test, generated(fitted.model, table, len(test), seed))}", flush=True)
    train_adversarially(fitted.model, table, AdversarialConfig(n_steps, 5, 128, 1e-4, seed), torch.device("cpu"))
    print(f"seed {seed}: after {areas(test, generated(fitted.model, table, len(test), seed))}", flush=True)


def main() -> None:
    """Compare on a number of splits."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("groupby")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    given = parser.parse_args()
    adata = cells_of(given.name, given.groupby, largest=True)
    for seed in range(given.seeds):
        compare(adata, seed, given.steps)


if __name__ == "__main__":
    main()
