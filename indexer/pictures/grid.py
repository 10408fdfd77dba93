"""Where the patches of an encoder's input lie in the picture as it is displayed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.pictures.decode import Box
from indexer.pictures.preprocess import shortest_edge
from search.recipe import Preprocessing

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Rows and columns of equal cells, numbered row by row from 0.

    box: x, y, width, height of all cells together, as fractions of the upright picture. What a crop cuts off lies
    outside it; where a picture was padded, it reaches beyond 0..1, and cells lie outside the picture.
    """

    rows: int
    columns: int
    box: Box

    def cell(self, number: int) -> Box:
        """The part of a cell that lies in the picture: x, y, width, height as fractions of it."""
        row, column = divmod(number, self.columns)
        x, y, width, height = self.box
        left, right = (_inside(x + width * edge / self.columns) for edge in (column, column + 1))
        top, bottom = (_inside(y + height * edge / self.rows) for edge in (row, row + 1))
        return left, top, right - left, bottom - top

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which cells show the picture: (rows * columns,). Of a cell at the edge, the centre counts. One so narrow
        that it has no centre is in all cells that it touches."""
        x, y, width, height = self.box
        shown: NDArray[np.bool_] = _shown(y, height, self.rows)[:, None] & _shown(x, width, self.columns)
        return shown.ravel()


def grid_of(size: Size, preprocessing: Preprocessing, patch: int, box: Box | None = None) -> Grid:
    """The grid of a picture of `size` (width, height) as `preprocess.to_input` makes it an input.

    patch: pixels of a patch's side. Patches begin in the input's left upper corner; pixels that fill none are left out.
    box: x, y, width, height in pixels of the part that became the input; the grid is still in fractions of the whole.
    """
    left, top, width, height = (0, 0, *size) if box is None else box
    if preprocessing.geometry == "square":
        resized = (preprocessing.resize, preprocessing.resize)
    elif preprocessing.geometry == "crop":
        resized = shortest_edge((width, height), preprocessing.resize)
    else:
        scale = preprocessing.size / max(width, height)
        resized = max(1, round(width * scale)), max(1, round(height * scale))
    cells = preprocessing.size // patch
    (x, across), (y, down) = (_axis(side, preprocessing.size, cells * patch) for side in resized)
    return Grid(
        rows=cells,
        columns=cells,
        box=(
            (left + x * width) / size[0],
            (top + y * height) / size[1],
            across * width / size[0],
            down * height / size[1],
        ),
    )


def _shown(begin: float, length: float, cells: int) -> NDArray[np.bool_]:
    """Which cells along one side of a grid show the picture, which lies in 0..1: (cells,)."""
    edges = begin + length * np.arange(cells + 1) / cells
    centres = (edges[1:] + edges[:-1]) / 2
    within: NDArray[np.bool_] = (centres >= 0) & (centres <= 1)
    return within if within.any() else (edges[1:] > 0) & (edges[:-1] < 1)


def _axis(resized: int, side: int, kept: int) -> tuple[float, float]:
    """Where the patches begin, and how long they are together, in lengths of a picture resized to `resized` pixels."""
    begin = (resized - side) // 2 if resized >= side else -((side - resized) // 2)  # negative: padding adds a margin
    return begin / resized, kept / resized


def _inside(value: float) -> float:
    return min(1.0, max(0.0, value))
