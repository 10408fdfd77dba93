#!/usr/bin/env bash
# One would guess: an image that Pillow can open and load can be made a thumbnail of; Image.draft says None where a JPEG has no
# reduced size.
# What happens: libjpeg-turbo 3 decodes lossless JPEG (SOF3: medical archives, DNG), and so does Pillow's load(). But it cannot scale
# one. draft() asks it to all the same and reports success; then load(), and thumbnail(), which drafts by itself, raise
# "broken data stream when reading image file", as of a damaged file. Read it again without draft().
# Where it matters: photo archives read with draft() to save time call such pictures damaged.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 imagecodecs==2026.3.6 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - <<'PY'
import io
import imagecodecs, numpy, PIL
from PIL import Image, features

print("Pillow", PIL.__version__, "libjpeg-turbo", features.version("libjpeg_turbo"), "imagecodecs", imagecodecs.__version__)
rows, columns = numpy.mgrid[0:480, 0:640]
pixels = numpy.stack([rows // 2, columns // 3, (rows + columns) // 5], -1).astype(numpy.uint8)
found = {}
for name, options in (("ordinary", {"level": 95}), ("lossless", {"lossless": True})):
    data = imagecodecs.jpeg8_encode(pixels, **options)
    for what in ("load", "draft + load", "thumbnail"):
        image = Image.open(io.BytesIO(data))
        try:
            drafted = image.draft("RGB", (160, 120)) if what.startswith("draft") else None
            image.thumbnail((160, 120)) if what == "thumbnail" else image.load()
            found[name, what] = "works"
        except OSError as error:
            found[name, what] = str(error) + (f"; draft() said {drafted}" if drafted else "")
        print(f"{name:9} {what:13} {found[name, what]}")
assert all(found["ordinary", what] == "works" for what in ("load", "draft + load", "thumbnail")), "the behaviour has changed"
assert found["lossless", "load"] == "works", "the behaviour has changed"
assert all("broken data stream" in found["lossless", what] for what in ("draft + load", "thumbnail")), "the behaviour has changed"
PY
