"""Penalties on what a minibatch looks like inside a model."""

from .base import Axes, Penalty, Seen
from .entropy import Entropy
from .mmd import MMD
from .tsne import TSNE

PENALTIES: dict[str, type[Penalty]] = {"mmd": MMD, "entropy": Entropy, "tsne": TSNE}

__all__ = ["MMD", "PENALTIES", "TSNE", "Axes", "Entropy", "Penalty", "Seen"]
