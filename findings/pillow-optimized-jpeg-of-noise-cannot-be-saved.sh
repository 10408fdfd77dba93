#!/usr/bin/env bash
# One would guess: any RGB image can be saved as a JPEG, whatever its content; optimize=True only makes the file smaller.
# What happens: with optimize=True and subsampling=0, Pillow makes a buffer of one byte a pixel at these qualities. Noise needs more:
# save raises OSError "broken data stream when writing image file", which sounds like a damaged input. Drawings and most photos pass.
# Where it matters: thumbnails of grainy pictures, made smaller with optimize and kept sharp with subsampling=0.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - <<'PY'
import io
import numpy, PIL
from PIL import Image

print("Pillow", PIL.__version__)
noise = Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=numpy.uint8))
plain = Image.new("RGB", (256, 256), "teal")
failed = set()
for name, image in (("noise", noise), ("plain", plain)):
    for options in ({}, {"optimize": True}, {"subsampling": 0}, {"optimize": True, "subsampling": 0}):
        try:
            image.save(io.BytesIO(), "JPEG", quality=85, **options)
            outcome = "saved"
        except OSError as error:
            failed.add((name, len(options)))
            outcome = f"OSError: {error}"
        print(name, options, outcome)
assert failed == {("noise", 2)}, failed
PY
