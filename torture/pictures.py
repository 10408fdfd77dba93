"""Hostile pictures: valid ones of every format, mutated, through the decoding processes; and over HTTP, past a server.

Whatever a file is, it is decoded or rejected with a reason, within its limits; nobody else notices.
"""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image, ImageDraw

from indexer.errors import ImageRejected
from indexer.pictures.decode import Decoded, DecodeLimits, decode, decode_pixels, thumbnail
from indexer.pictures.formats import sniff
from indexer.pictures.preprocess import Inputs
from indexer.pictures.worker import Workers
from search.recipe import Preprocessing
from search.types import ImageFacts
from torture.mutate import mutated
from torture.served import served
from torture.world import Figures

LIMITS = DecodeLimits(max_bytes=20_000_000, max_pixels=100_000_000, seconds=5, max_memory=1024**3)
INPUT = Preprocessing(geometry="crop", resize=32, size=32, resample=3, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
FINE = frozenset((200, 413, 415, 422))


def seeds() -> list[bytes]:
    """Small valid files: every format, and the ways of each that have code of their own."""
    random_numbers = np.random.default_rng(0)
    noise = Image.fromarray(random_numbers.integers(0, 256, (40, 56, 3), dtype=np.uint8))
    picture = noise.resize((96, 64), Image.Resampling.BICUBIC)
    ImageDraw.Draw(picture).ellipse((10, 10, 60, 50), fill="red")
    clear = picture.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x9003] = 6, "Camera", "2024:07:01 10:00:00"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 12.0, 0.0), 3: "E", 4: (16.0, 22.0, 0.0)})
    grey16 = Image.fromarray(random_numbers.integers(0, 2**16, (32, 32), dtype=np.uint16))
    frames = [picture.rotate(angle).convert("P") for angle in (0, 40, 80)]
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (picture, "JPEG", {"exif": exif}),
        (picture, "JPEG", {"progressive": True, "subsampling": 2}),
        (picture.convert("L"), "JPEG", {}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture, "PNG", {}),
        (clear, "PNG", {"exif": exif}),
        (picture.convert("P"), "PNG", {"transparency": 3}),
        (picture.convert("1"), "PNG", {}),
        (grey16, "PNG", {}),
        (frames[0], "PNG", {"save_all": True, "append_images": frames[1:]}),
        (frames[0], "GIF", {"save_all": True, "append_images": frames[1:]}),
        (picture, "WEBP", {"exif": exif}),
        (clear, "WEBP", {"lossless": True}),
        (picture, "BMP", {}),
        (picture.convert("P"), "BMP", {}),
        (picture, "TIFF", {"compression": "tiff_lzw"}),
        (picture, "TIFF", {"compression": "jpeg"}),
        (picture.convert("1"), "TIFF", {"compression": "group4"}),
        (grey16, "TIFF", {}),
        (picture, "AVIF", {}),
    ]
    made = []
    for one, name, options in kinds:
        out = BytesIO()
        one.save(out, name, **options)
        made.append(out.getvalue())
    return made


def changed(data: bytes, chance: random.Random) -> bytes:
    """One to eight changes, most of them small; some are numbers that sizes and offsets like to be."""
    for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
        if len(data) < 16:
            break
        if chance.random() < 0.3:
            at, size = chance.randrange(len(data) - 4), chance.choice((1, 2, 4))
            number = chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
            one = (number & (1 << 8 * size) - 1).to_bytes(size, chance.choice(("big", "little")))
            data = data[:at] + one + data[at + size :]
        else:
            data = mutated(data, chance)[1] or data
    return data


def torture(folder: Path, seed: int, *, runs: int, minutes: float = 1e9, broken: bool = False) -> Figures:
    """Mutate and decode so often, as builds, searches and thumbnails do, in as many processes as there are cores.

    broken: a decoder that hands out pixels as they come, as a control.
    """
    del folder
    figures, until, guard = Figures(), time.monotonic() + 60 * minutes, threading.Lock()
    originals = seeds()
    numbers = iter(range(seed * 1_000_000_007, seed * 1_000_000_007 + runs))

    def outcome(workers: Workers, data: bytes, chance: random.Random) -> str:
        try:
            fine = _fine(workers, data, chance, broken)
        except ImageRejected as error:
            return (
                f"rejected: {str(error).partition(' (')[0]}"
                if "crashed" in str(error) or "longer" in str(error)
                else "rejected"
            )
        except Exception as error:
            return f"wrong: {type(error).__name__}: {error}"
        return "decoded" if fine else "wrong: its pixels have another shape"

    def work(workers: Workers) -> None:
        while time.monotonic() < until and not figures.wrong:
            with guard:
                number = next(numbers, None)
            if number is None:
                return
            chance = random.Random(number)
            found = outcome(workers, changed(chance.choice(originals), chance), chance)
            with guard:
                figures.runs += 1
                figures.count(found.partition(":")[0] if found.startswith("wrong") else found)
                if found.startswith("wrong"):
                    figures.wrong.append(f"picture {number}: {found}")

    cores = os.cpu_count() or 1
    with Workers((INPUT,), LIMITS) as workers, ThreadPoolExecutor(cores) as pool:
        for one in [pool.submit(work, workers) for _ in range(cores)]:
            one.result()
        figures.count("processes replaced", workers.replaced)
    return figures


def _fine(workers: Workers, data: bytes, chance: random.Random, broken: bool) -> bool:
    """Do one of what is done with a picture; whether its outcome has the right form."""
    kind = chance.randrange(4)
    if broken or kind < 2:
        decoded = workers.run(raw if broken else decode, data, inputs=(INPUT,))
        return decoded.pixels.shape == (32, 32, 3)
    if kind == 2:
        with Image.open(BytesIO(workers.run(thumbnail, data, size=24))) as small:
            return small.format == "JPEG" and max(small.size) <= 24
    box = chance.choice((None, (1.0, 2.0, 20.0, 25.0), (chance.uniform(-9, 99), 0.0, chance.uniform(0, 1e9), 9.0)))
    return workers.run(decode_pixels, data, inputs=(INPUT,), box=box).shape == (32, 32, 3)


def raw(data: bytes, inputs: Inputs, *, limits: DecodeLimits) -> Decoded:
    """`decode` by somebody who believes what a file says of itself."""
    del inputs, limits
    try:
        with Image.open(BytesIO(data)) as opened:
            pixels = np.asarray(opened.convert("RGB"))
    except Exception as error:
        raise ImageRejected(str(error)) from error
    return Decoded(facts=ImageFacts(width=1, height=1, format="raw", bytes=len(data)), pixels=pixels)


def over_http(folder: Path, seed: int, *, runs: int, minutes: float = 1e9, broken: bool = False) -> Figures:
    """Mutate and upload so often, past one server. broken: the encoder fails on every third picture, as a control."""
    figures, until = Figures(), time.monotonic() + 60 * minutes
    originals = [one for one in seeds() if sniff(one[:32])]
    with served(folder, broken=broken) as (url, process), httpx.Client(base_url=url, timeout=60) as http:
        while figures.runs < runs and time.monotonic() < until and not figures.wrong:
            chance = random.Random(seed * 1_000_000_007 + figures.runs)
            data = changed(chance.choice(originals), chance)
            status = http.post("/v1/search/image", files={"image": ("x", data)}).status_code
            figures.runs += 1
            figures.count(str(status))
            if status not in FINE:
                figures.wrong.append(f"picture {figures.runs} of seed {seed}: answered {status}")
        if process.poll() is not None:
            figures.wrong.append(f"the server ended with {process.returncode}")
        elif http.get("/readyz").status_code != 200 and not broken:
            figures.wrong.append("the server is not ready afterwards")
    return figures
