"""Keys of fixed size beside axes of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.transforms import Bbox

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def axes_beside(ax: Axes, down: float, size: tuple[float, float], *, gap: float = 0.25) -> Axes:
    """Return new axes to the right of others, whose size is in inches however large those are.

    Parameters
    ----------
    ax
        The others.
    down
        Distance from their upper edge, in inches.
    size
        Width and height in inches.
    gap
        Distance from their right edge, in inches.
    """
    child = ax.inset_axes((0, 0, 1, 1))
    width, height = size

    def place(_child: Axes, _renderer: object) -> Bbox:
        frame, dpi = ax.get_window_extent(), ax.figure.dpi
        left, top = frame.x1 + gap * dpi, frame.y1 - down * dpi
        pixels = Bbox.from_extents(left, top - height * dpi, left + width * dpi, top)
        return Bbox(ax.figure.transSubfigure.inverted().transform(pixels))

    child.set_axes_locator(place)  # type: ignore[arg-type]  # of matplotlib's stubs, which want its own class
    return child
