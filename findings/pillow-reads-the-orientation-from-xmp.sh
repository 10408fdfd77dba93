#!/usr/bin/env bash
# One would guess: the orientation that ImageOps.exif_transpose applies is the one in Exif, as its name says and OpenCV has it;
# a file without Exif is shown as it is stored.
# What happens: where Exif has none, Image.getexif() takes tiff:Orientation from the XMP packet, in JPEG, PNG, WebP and TIFF, and
# exif_transpose turns the pixels by it. A program that turns pixels and rewrites Exif may leave the tag in XMP behind.
# OpenCV, which reads Exif by default, leaves the same file alone, so that sizes, boxes and embeddings of both disagree.
# Where it matters: boxes of objects taken from one decoder and searched for in pixels of the other.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 opencv-python-headless==5.0.0.93 numpy==2.4.6 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - <<'PY'
import io
import cv2, numpy, PIL
from PIL import ExifTags, Image, ImageOps
from PIL.PngImagePlugin import PngInfo

print("Pillow", PIL.__version__, "OpenCV", cv2.__version__)
picture = Image.new("RGB", (40, 64), "red")
xmp = (b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
       b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>')
info = PngInfo()
info.add_itxt("XML:com.adobe.xmp", xmp.decode())
exif = Image.Exif()
exif[ExifTags.Base.Orientation] = 6
stored = {"JPEG": {"xmp": xmp}, "PNG": {"pnginfo": info}, "WEBP": {"xmp": xmp}, "TIFF": {"tiffinfo": {700: xmp}}}
for format, options in stored.items():
    file = io.BytesIO()
    picture.save(file, format, **options)
    image = Image.open(io.BytesIO(file.getvalue()))
    opencv = cv2.imdecode(numpy.frombuffer(file.getvalue(), "uint8"), cv2.IMREAD_COLOR).shape[1::-1]
    upright = ImageOps.exif_transpose(image).size
    print(f"{format:4} {image.size}, Exif in the file: {'exif' in image.info}; exif_transpose: {upright}; OpenCV: {opencv}")
    assert "exif" not in image.info and upright == (64, 40) and opencv == (40, 64), "the behaviour has changed"
file = io.BytesIO()
picture.save(file, "JPEG", exif=exif)
both = cv2.imdecode(numpy.frombuffer(file.getvalue(), "uint8"), cv2.IMREAD_COLOR).shape[1::-1], ImageOps.exif_transpose(Image.open(file)).size
print("orientation in Exif instead: OpenCV and exif_transpose", both)
assert both == ((64, 40), (64, 40)), "the behaviour has changed"
PY
