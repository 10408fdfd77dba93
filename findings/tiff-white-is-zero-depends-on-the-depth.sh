#!/usr/bin/env bash
# One would guess: a grey TIFF whose zero is white (PhotometricInterpretation 0: faxes, scanned negatives, radiographs) is turned by the
# decoder, or is not; but not by its depth.
# What happens: Pillow and OpenCV turn 8 bits and leave 16 as they are: the same picture comes out as a negative of itself,
# without a warning, and the mode "I;16" does not say so. Only the tag does: image.tag_v2[262] == 0.
# Where it matters: embedding TIFFs of all depths; an 8-bit copy did not resemble its 16-bit original.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3 opencv-python-headless==5.0.0.93 numpy==2.4.6 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - "$work" <<'PY'
import sys
import cv2, numpy, PIL, tifffile
from PIL import Image

print("Pillow", PIL.__version__, "OpenCV", cv2.__version__)
dark = {}
for kind in ("minisblack", "miniswhite"):
    for bits in (8, 16):
        scale = 2**bits - 1
        seen = numpy.tile(numpy.linspace(0, scale, 64).round().astype(f"uint{bits}"), (64, 1))  # black on the left, as a viewer shows it
        path = f"{sys.argv[1]}/picture.tif"
        tifffile.imwrite(path, seen if kind == "minisblack" else scale - seen, photometric=kind)
        image = Image.open(path)
        by_pillow, by_cv = numpy.asarray(image), cv2.imread(path, cv2.IMREAD_UNCHANGED)
        dark[kind, bits] = bool(by_pillow[0, 0] == 0), bool(by_cv[0, 0] == 0)
        names = ["black, as meant" if black else "WHITE" for black in dark[kind, bits]]
        print(f"{kind}, {bits:2} bits ({image.mode}, tag {image.tag_v2[262]}): the black corner is in Pillow {names[0]}, in OpenCV {names[1]}")
assert dark == {("minisblack", 8): (True, True), ("minisblack", 16): (True, True), ("miniswhite", 8): (True, True), ("miniswhite", 16): (False, False)}, "the behaviour has changed"
PY
