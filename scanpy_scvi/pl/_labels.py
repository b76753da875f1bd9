"""Names beside points, none over another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._axes import BLACK, GREY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.text import Text

LINE = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6}
SIZE = 8
ADJUST = {"expand": (1.15, 1.4), "force_static": (0.3, 0.4), "force_text": (0.3, 0.4), "force_pull": (0.02, 0.02)}
"""How adjustText pushes: names of genes are wide and stand close."""
STEPS = 150
"""Most steps of adjustText; a limit in seconds, its default, would make pictures depend on the machine."""
NEAREST, FARTHEST, N_DISTANCES = 4.0, 60.0, 8
"""Distances from point to name that are tried, in points (1/72 inch)."""
DIRECTIONS = np.deg2rad([30, 150, 90, 0, 180, -30, -150, -90, 60, 120, -60, -120])
"""Where a name is tried, better places first."""


def label_points(ax: Axes, points: np.ndarray, names: Sequence[str], others: np.ndarray) -> list[Text]:
    """Write a name beside each point, by adjustText where it is installed, else in the first free place.

    Call it last: places depend on the limits and on the size of the axes.

    Parameters
    ----------
    ax
        Axes to write in.
    points
        Positions that the names belong to, (n, 2).
    names
        The names.
    others
        Positions of the points that names had better not hide, (m, 2).
    """
    if not len(names):
        return []
    try:
        from adjustText import adjust_text
    except ImportError:
        return _place(ax, points, names, others)
    texts = [ax.text(x, y, name, fontsize=SIZE, color=BLACK) for (x, y), name in zip(points, names, strict=True)]
    lines = adjust_text(texts, x=others[:, 0], y=others[:, 1], ax=ax, arrowprops=LINE, iter_lim=STEPS, **ADJUST)[1]
    boxes = np.array([text.get_window_extent().extents for text in texts])
    if _inside(boxes, ax).all() and _overlaps(boxes, boxes).sum() == len(boxes):  # each meets itself alone
        return texts
    for artist in (*texts, *lines):  # it found no room for all
        artist.remove()
    return _place(ax, points, names, others)


def _place(ax: Axes, points: np.ndarray, names: Sequence[str], others: np.ndarray) -> list[Text]:
    """Give each name the place around its point that costs least: no name under it, few points, close by."""
    ax.figure.figure.draw_without_rendering()  # a constrained layout gives the axes their size only now
    pixels = ax.figure.figure.dpi / 72
    at, crowd = ax.transData.transform(points), ax.transData.transform(others)
    taken, lines = np.empty((0, 4)), np.empty((0, 2))
    texts: list[Text] = []
    for point, xy, name in zip(at, points, names, strict=True):
        text = ax.annotate(
            name, xy, (0, 0), textcoords="offset points", ha="center", va="center", fontsize=SIZE, color=BLACK
        )
        extent = text.get_window_extent()
        half = np.array([extent.width, extent.height]) / 2 + pixels
        middles = point + _offsets(half, pixels)
        boxes = np.concatenate([middles - half, middles + half], axis=1)
        ends = np.clip(point, boxes[:, :2], boxes[:, 2:])
        ways = point + np.linspace(0, 1, 9)[:, None, None] * (ends - point)  # steps x places x 2
        cost = (
            1000 * ~_inside(boxes, ax) + 100 * _overlaps(boxes, taken).sum(axis=1) + _covered(boxes, crowd).sum(axis=1)
        )
        cost = cost + 30 * _covered(boxes, lines).any(axis=1) + 30 * _crossed(ways, taken)
        best = int(np.argmin(cost + np.linspace(0, 2, len(cost))))
        text.set_position(tuple((middles[best] - point) / pixels))
        if np.linalg.norm(ends[best] - point) > 2 * NEAREST * pixels:
            end = tuple((ends[best] - point) / pixels)
            ax.annotate("", xy, end, textcoords="offset points", arrowprops=LINE | {"shrinkA": 0, "shrinkB": 2})
            lines = np.concatenate([lines, ways[:, best]])
        taken = np.concatenate([taken, boxes[[best]]])
        texts.append(text)
    return texts


def _offsets(half: np.ndarray, pixels: float) -> np.ndarray:
    """Middles of the places that are tried, relative to the point, nearest first."""
    distances = np.linspace(NEAREST, FARTHEST, N_DISTANCES) * pixels
    directions = np.c_[np.cos(DIRECTIONS), np.sin(DIRECTIONS)]
    return np.concatenate([directions * (half + distance) for distance in distances])


def _inside(boxes: np.ndarray, ax: Axes) -> np.ndarray:
    """Whether each box lies in the axes."""
    frame = ax.get_window_extent()
    return np.asarray((boxes[:, :2] >= frame.p0 - 1).all(axis=1) & (boxes[:, 2:] <= frame.p1 + 1).all(axis=1))


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each box meets each other one; boxes are left, bottom, right, top."""
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    return np.asarray(((low < others[:, 2:]) & (others[:, :2] < high)).all(axis=2))


def _covered(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether each box has each point inside."""
    return np.asarray(((points > boxes[:, None, :2]) & (points < boxes[:, None, 2:])).all(axis=2))


def _crossed(ways: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Whether each way, steps x ways x 2, leads through any box."""
    return np.array([_covered(boxes, way).any() for way in ways.swapaxes(0, 1)])
