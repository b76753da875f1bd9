"""Compare a figure with a stored picture.

Stored pictures are in `tests/pl/pictures`. To draw them anew, set SCANPY_SCVI_PICTURES=write, run the tests, and look
at every changed one. Fonts differ a little between versions of matplotlib, so what is compared is the mean difference,
and it is compared only under the version that drew them; structure is tested everywhere.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parent / "pl" / "pictures"
DRAWN_WITH = "3.11"
"""Version of matplotlib that drew the stored pictures."""
MOST = 4.0
"""Largest root mean square of the differences of pixels that passes, of 255."""


def assert_same_picture(figure: Figure, name: str) -> None:
    """Raise an AssertionError where the figure is not as stored; skip under another version of matplotlib."""
    path = FOLDER / f"{name}.png"
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    if os.environ.get("SCANPY_SCVI_PICTURES") == "write":
        FOLDER.mkdir(exist_ok=True)
        path.write_bytes(buffer.getvalue())
        return
    if not mpl.__version__.startswith(DRAWN_WITH + "."):
        pytest.skip(f"pictures were drawn with matplotlib {DRAWN_WITH}, this is {mpl.__version__}")
    buffer.seek(0)
    drawn, stored = imread(buffer), imread(path)
    assert drawn.shape == stored.shape
    difference = 255 * np.sqrt(np.mean((drawn - stored) ** 2))
    assert difference < MOST, f"{name}: pixels differ by {difference:.1f} on average"
