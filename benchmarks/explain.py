"""How often a match of an explanation is right: pictures against their own crops, where the right place is known.

    python benchmarks/explain.py SETS

SETS is the folder in which Debian's packages qabcs-data, scratch and mate-backgrounds were unpacked
(`dpkg -x PACKAGE.deb SETS`). From each picture a crop is cut whose sides are .5 to .85 of the picture's, each drawn by
itself. A match is right where its patch of the picture lies at most one patch from the right place. Up to eight a pair
are listed. Beside what is shipped: the same by falling cosine, and chance, any patch of the picture. Settings were
chosen on other pictures: stamps, openclipart, and the wallpapers of nature, which are left out here. Prints Markdown.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from edits import opened
from machine import machine
from numpy.typing import NDArray

from indexer.encoders.patches import PatchEncoder
from indexer.encoders.recipes import default_requests, spaces_for
from indexer.explain import MATCHES, Explanation, compare
from indexer.models import PACKAGED, locate
from indexer.pictures.decode import Box
from indexer.pictures.grid import grid_of
from indexer.pictures.preprocess import to_input
from search.types import Encoding

PICTURES = 40
"""Of a set, drawn with the seed 0."""
SETS = {
    "qabcs": ("usr/share/qabcs/abcs/all/pics", "*.png"),
    "scratch": ("usr/share/scratch", "*.png"),
    "wallpapers": ("usr/share/backgrounds/mate", "[ad]*/*.*g"),
}


def right(query: Box, hit: Box, part: Box, columns: int, rows: int) -> bool:
    """Whether a box of the crop leads to a box of the picture that is at most a cell away from it. part: the crop."""
    across = part[0] + part[2] * (query[0] + query[2] / 2) - hit[0] - hit[2] / 2
    down = part[1] + part[3] * (query[1] + query[3] / 2) - hit[1] - hit[3] / 2
    return abs(across) * columns <= 1 and abs(down) * rows <= 1


def by_cosine(found: Explanation) -> Sequence[tuple[Box, Box]]:
    """The mutual matches by falling cosine, two cells apart, as many as are shipped at most."""
    side, kept = found.query, list[int]()
    for number in np.argsort(-side.cosines).tolist():
        row, column = divmod(number, side.grid.columns)
        places = (divmod(one, side.grid.columns) for one in kept)
        if side.mutual[number] and all(max(abs(row - r), abs(column - c)) > 1 for r, c in places):
            kept.append(number)
        if len(kept) == MATCHES:
            break
    return [(side.grid.cell(number), found.hit.grid.cell(int(side.nearest[number]))) for number in kept]


def measure(encoder: PatchEncoder, paths: Sequence[Path], drawn: random.Random) -> str:
    """A row: matches listed a pair and the share that is right, shipped and by cosine; chance."""
    shipped: list[bool] = []
    cosine: list[bool] = []
    chance: list[bool] = []
    for path in paths:
        picture = opened(path)
        sides = [round(length * drawn.uniform(0.5, 0.85)) for length in picture.size]
        left, top = (drawn.randrange(length - side + 1) for length, side in zip(picture.size, sides, strict=True))
        crop = picture.crop((left, top, left + sides[0], top + sides[1]))
        part = (left / picture.width, top / picture.height, sides[0] / picture.width, sides[1] / picture.height)
        pixels: list[NDArray[np.uint8]] = [to_input(one, encoder.preprocessing) for one in (crop, picture)]
        grids = [grid_of(one.size, encoder.preprocessing, encoder.patch) for one in (crop, picture)]
        patches = encoder.encode(np.stack(pixels))
        found = compare(patches[0], patches[1], grids[0], grids[1])
        cells = grids[1].columns, grids[1].rows
        shipped += [right(match.query_box, match.hit_box, part, *cells) for match in found.matches]
        cosine += [right(query, hit, part, *cells) for query, hit in by_cosine(found)]
        for _ in range(MATCHES):
            one, other = (grid.cell(drawn.randrange(grid.rows * grid.columns)) for grid in grids)
            chance.append(right(one, other, part, *cells))
    count = len(shipped) / len(paths)
    return f"{len(paths)} | {count:.1f} | {np.mean(shipped):.2f} | {np.mean(cosine):.2f} | {np.mean(chance):.2f}"


def main() -> None:
    """Print a row a set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sets", type=Path)
    sets = parser.parse_args().sets
    files = locate(PACKAGED.name)
    space = spaces_for(files, default_requests(files), Encoding(backend="openvino", precision="fp32"))[0]
    encoder = PatchEncoder(space, sets)
    print(f"{machine()}; {space.name}\n")
    print("| set | pictures | matches a pair | right | right, by cosine | chance |\n|---|---|---|---|---|---|")
    for name, (folder, pattern) in SETS.items():
        drawn = random.Random(0)
        paths = sorted((sets / folder).rglob(pattern))
        print(f"| {name} | {measure(encoder, drawn.sample(paths, min(PICTURES, len(paths))), drawn)} |", flush=True)


if __name__ == "__main__":
    main()
