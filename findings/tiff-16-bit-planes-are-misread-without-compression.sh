#!/usr/bin/env bash
# One would guess: whether a TIFF's samples are compressed changes its size, not its pixels; what a decoder does not support, it refuses.
# What happens: 16-bit colour in planes (PlanarConfiguration 2; microscopes, scanners) is read right by Pillow if it is compressed
# and wrong if it is not: each plane is taken for bytes, so that it is stretched into stripes, without an error or a warning. The same
# in 8 bits is right both ways. OpenCV gets both of the 16-bit ones wrong, as silently. tifffile reads all.
# Where it matters: embedding TIFFs of all depths and layouts; these came out as stripes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3 opencv-python-headless==5.0.0.93 numpy==2.4.6 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - "$work" <<'PY'
import sys
import cv2, numpy, PIL, tifffile
from PIL import Image

print("Pillow", PIL.__version__, "OpenCV", cv2.__version__, "tifffile", tifffile.__version__)
rows, columns = numpy.mgrid[0:64, 0:64]
deep = numpy.stack([rows * 1000, columns * 1000, (rows + columns) * 500], -1).astype("uint16")
wrong = {}
for bits, pixels in ((16, deep), (8, (deep >> 8).astype("uint8"))):
    for planes in ("contig", "separate"):
        for compression in (None, "zlib"):
            path = f"{sys.argv[1]}/picture.tif"
            data = pixels if planes == "contig" else numpy.moveaxis(pixels, -1, 0).copy()
            tifffile.imwrite(path, data, photometric="rgb", planarconfig=planes, compression=compression)
            image = Image.open(path)
            image.load()
            by_pillow, by_cv = numpy.asarray(image), cv2.imread(path, cv2.IMREAD_UNCHANGED)[..., ::-1]
            assert numpy.array_equal(tifffile.imread(path), data)
            pillow = numpy.mean(by_pillow != (deep >> 8))  # Pillow keeps the high bytes of 16-bit colour
            opencv = numpy.mean(by_cv != pixels)
            wrong[bits, planes, compression] = pillow > 0, opencv > 0
            print(f"{bits:2} bits, {planes:8}, compression {compression!s:4}: samples wrong in Pillow {pillow:4.0%}, OpenCV {opencv:4.0%}")
for (bits, planes, compression), (pillow, opencv) in wrong.items():
    deep_planes = bits == 16 and planes == "separate"
    assert opencv == deep_planes and pillow == (deep_planes and compression is None), "the behaviour has changed"
PY
