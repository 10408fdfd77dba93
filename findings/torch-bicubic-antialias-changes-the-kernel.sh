#!/usr/bin/env bash
# One would guess: antialias=True changes torch's interpolate(mode="bicubic") only where it makes an image smaller; there is nothing to
# smooth where it is made larger, so that both give the same.
# What happens: the two are different cubics. Without antialias the kernel's parameter is a = -0.75 (as in OpenCV), with it -0.5 (as in
# Pillow and in jax.image.resize). Enlarged values differ by percents, and only the second equals Pillow.
# Where it matters: position embeddings of a ViT, resized to another image size by two libraries that both say "bicubic", give other embeddings
# (5e-3 between DINOv2 in torch and on JAX): torch's models use the first, ports the second.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 pillow==13.0.0 jax==0.10.2 opencv-python-headless==5.0.0.93 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - 2>"$work/errors" <<'PY' || { tail -3 "$work/errors"; exit 1; }
import cv2, jax, numpy as np, PIL, torch
from PIL import Image

print("torch", torch.__version__, "Pillow", PIL.__version__, "OpenCV", cv2.__version__, "JAX", jax.__version__)
grid = np.random.default_rng(0).normal(size=(16, 16)).astype("float32")


def by_torch(antialias):
    image = torch.from_numpy(grid)[None, None]
    return torch.nn.functional.interpolate(image, size=(32, 32), mode="bicubic", align_corners=False, antialias=antialias)[0, 0].numpy()


enlarged = {
    "torch": by_torch(False),
    "torch, antialias": by_torch(True),
    "OpenCV": cv2.resize(grid, (32, 32), interpolation=cv2.INTER_CUBIC),
    "Pillow": np.asarray(Image.fromarray(grid).resize((32, 32), Image.Resampling.BICUBIC)),
    "JAX": np.asarray(jax.image.resize(grid, (32, 32), "cubic")),
}
middle = slice(4, 28)  # borders are another matter
gap = {(a, b): np.abs(enlarged[a][middle, middle] - enlarged[b][middle, middle]).max() for a in enlarged for b in enlarged}
for name in enlarged:
    print(f"16 to 32 by {name:17} largest difference from torch {gap[name, 'torch']:.5f}, from torch with antialias {gap[name, 'torch, antialias']:.5f}")
assert gap["torch", "torch, antialias"] > 0.05, "the behaviour has changed"
assert gap["OpenCV", "torch"] < 1e-4 and gap["Pillow", "torch, antialias"] < 1e-4 and gap["JAX", "torch, antialias"] < 1e-4, "the behaviour has changed"
PY
