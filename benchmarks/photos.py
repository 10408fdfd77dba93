"""12-megapixel JPEGs, as cameras make them, out of large pictures.

    python benchmarks/photos.py PICTURES TARGET [--count 300]

PICTURES is a folder of large pictures, e.g. usr/share/wallpapers and usr/share/backgrounds of Debian's packages
plasma-workspace-wallpapers, gnome-backgrounds and mate-backgrounds. Every JPEG is a random part of one of them, scaled
to 4000x3000, with a sensor's noise, so that it takes the 3 to 6 MB that a camera's would.
"""

from __future__ import annotations

import argparse
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (4000, 3000)
NOISE = 5.0
"""Standard deviation, of 255."""
MIN_SIDE = 700
"""Smaller pictures would be blurred beyond what a photo is."""


def draw(source: Path, target: Path, seed: int) -> None:
    """One JPEG from a random part of one picture."""
    chance = random.Random(seed)
    with Image.open(source) as image:
        width, height = image.size
        share = chance.uniform(0.6, 1) * min(width / SIZE[0], height / SIZE[1])
        w, h = int(SIZE[0] * share), int(SIZE[1] * share)
        x, y = chance.randint(0, width - w), chance.randint(0, height - h)
        part = image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC, box=(x, y, x + w, y + h))
    noise = np.random.default_rng(seed).normal(0, NOISE, (SIZE[1], SIZE[0], 1)).astype(np.float32)
    noisy = (np.asarray(part, np.float32) + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(target, quality=90)


def main() -> None:
    """Draw them all, on all cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--count", type=int, default=300)
    chosen = parser.parse_args()
    sources = []
    for path in sorted(chosen.pictures.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
            with Image.open(path) as image:
                if min(image.size) >= MIN_SIDE:
                    sources.append(path)
    chosen.target.mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        drawn = [
            pool.submit(draw, sources[number % len(sources)], chosen.target / f"{number:04}.jpg", number)
            for number in range(chosen.count)
        ]
        for future in drawn:
            future.result()
    print(f"{chosen.count} JPEGs of {len(sources)} pictures in {chosen.target}")


if __name__ == "__main__":
    main()
