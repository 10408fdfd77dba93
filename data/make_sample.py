"""Make `sample/` and `queries/` again from the Open Clip Art Library's PNGs, as `sample.csv` selects them."""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
MAX_SIDE = 256
"""Pixels: what the packaged model looks at, and no more."""
COLOURS = 128


def shrink(source: Path, target: Path) -> None:
    """Write one picture at most MAX_SIDE a side: JPEG and WebP on white, PNG with its transparency."""
    with Image.open(source) as opened:
        picture = opened.convert("RGBA")
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".png":
        picture.quantize(COLOURS, method=Image.Quantize.FASTOCTREE).save(target, optimize=True)
        return
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture.getchannel("A"))
    flat.save(target, quality=88)


def main() -> None:
    """Read the selection and write both folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=Path, help="openclipart's PNG folder, e.g. /usr/share/openclipart/png")
    library: Path = parser.parse_args().library
    for folder in ("sample", "queries"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    with (HERE / "sample.csv").open(newline="", encoding="utf-8") as rows:
        chosen = [(library / row["source"], HERE / row["target"]) for row in csv.DictReader(rows)]
    for source, target in chosen:
        shrink(source, target)
    written = [target.stat().st_size for _, target in chosen]
    print(f"{len(written)} pictures, {sum(written) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
