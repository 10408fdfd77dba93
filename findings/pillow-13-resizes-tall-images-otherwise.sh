#!/usr/bin/env bash
# One would guess: Image.resize gives the same pixels in Pillow 12 and 13, or the notes of 13 would say that embeddings,
# hashes and golden images of resized pictures change.
# What happens: a tall image is resized down before it is resized across in 13, and the other way round in 12. Rounding between the
# two passes differs, so pixels differ by one step. Wide images are the same.
# Where it matters: an index built with one version and searched with the other compares slightly different pixels.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
for version in 12.3.0 13.0.0; do
  python3 -m venv "$work/$version"
  "$work/$version/bin/pip" install --quiet --disable-pip-version-check "pillow==$version" 2>/dev/null || { echo "pillow $version cannot be installed"; exit 1; }
  "$work/$version/bin/python" - "$version" "$work" <<'PY'
import random, sys
import PIL
from PIL import Image

assert PIL.__version__ == sys.argv[1]
chance = random.Random(0)
for name, size in (("tall", (300, 2400)), ("wide", (2400, 300))):
    image = Image.frombytes("RGB", size, chance.randbytes(3 * size[0] * size[1]))
    small = image.resize((224, 224), Image.Resampling.BICUBIC)
    open(f"{sys.argv[2]}/{name}-{sys.argv[1]}", "wb").write(small.tobytes())
PY
done
"$work/13.0.0/bin/python" - "$work" <<'PY'
import sys

differ = {}
for name in ("tall", "wide"):
    old, new = (open(f"{sys.argv[1]}/{name}-{version}", "rb").read() for version in ("12.3.0", "13.0.0"))
    differ[name] = (sum(a != b for a, b in zip(old, new)) / len(old), max(abs(a - b) for a, b in zip(old, new)))
    print(f"{name}: {differ[name][0]:.1%} of the values differ, by at most {differ[name][1]}")
assert differ["tall"][0] > 0.02 and differ["tall"][1] >= 1 and differ["wide"][0] == 0, "the behaviour has changed"
PY
