"""Penalties on what a minibatch looks like inside a model."""

from .base import Penalty, Seen

PENALTIES: dict[str, type[Penalty]] = {}

__all__ = ["PENALTIES", "Penalty", "Seen"]
