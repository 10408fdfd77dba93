#!/usr/bin/env bash
# One would guess: ImageOps.exif_transpose makes any photo upright, JPEG XL too, if a plugin gives Pillow its Exif.
# What happens: the orientation of a JPEG XL is in its own header; libjxl applies it while decoding, and the standard says that the
# one in Exif is not to be applied. pillow-jxl-plugin hands the Exif on unchanged, so that exif_transpose turns what is upright.
# Of a JPEG that was packed losslessly it gives the JPEG's own pixels, which must be turned: `image.jpeg` tells which one it is.
# Where it matters: phone photos converted to JPEG XL that come out on their side, while others do not.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 pillow-jxl-plugin==1.3.8 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - <<'PY'
import base64, io
from importlib.metadata import version
import pillow_jxl
from PIL import Image, ImageOps

print("Pillow", version("pillow"), "pillow-jxl-plugin", version("pillow-jxl-plugin"))
# Made by cjxl 0.7 --lossless_jpeg=0 of a JPEG of 64 x 96 pixels with orientation 6: upright 96 x 64, its top left quarter red.
turned = base64.b64decode(
    "AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAFNanhsY/8KF44FEopLAgASiAIA1ARd5RIAABUqo4wbvJzr+fJDh8W0jesMbbVtYUmiyDg2SSdwCCmwxfWRRx4zxpg8MpmRMSZj5sXMGGMy4cQSACx4SuokKqqwsVxw4le3gFAAMgKSh8KphlDm9ZwLolw7lg87rEX5QP2JAFc7Y9oQGMYVg5PONYyrf92OmKbJJLR9DgqwRh6i6TXApXRKoBQIpFnK8DTeRuHYqOBNuQIOQm6KTpSqLVM7eNmCUQbCtkIKpEkiyeHdZPLEjMyJ2Yx1AZAS72ywv+1B857s9DAbS4/Rb7oE40XHdj2/hJ1KU6zHZ0IbOL3jV0ciTeNTbS896zwwEA9sd1GkACMvwLchwmfaStxABh1Fv3AgxNZTwvjriF1uPcRTB1t4s9l56T2bU44x7BKQ86Y+reHUYDGz6k4DS9cGzw8="
)
exif = Image.Exif()
exif[0x0112] = 6
box = b"Exif" + bytes(4) + exif.tobytes().removeprefix(b"Exif\0\0")  # as cameras and converters keep it beside the picture
image = Image.open(io.BytesIO(turned + (4 + len(box)).to_bytes(4, "big") + box))
image.load()
print("decoded:", image.size, "Exif orientation:", image.getexif().get(0x0112), "was a JPEG:", image.jpeg)
again = ImageOps.exif_transpose(image)
print("after exif_transpose:", again.size)
assert image.size == (96, 64) and image.getpixel((10, 10))[1] < 30, "the behaviour has changed"
assert again.size == (64, 96), "the behaviour has changed"
PY
