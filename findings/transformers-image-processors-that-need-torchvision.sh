#!/usr/bin/env bash
# One would guess: AutoImageProcessor.from_pretrained(FOLDER, backend="pil") needs Pillow only; where torchvision is missing, transformers 5
# takes the Pillow processor by itself, as it does for ViT, CLIP, SigLIP and DINOv2.
# What happens: DINOv3 and TIPSv2 have no Pillow processor: both raise without torchvision, with backend="pil" too, although the models
# themselves run without it. What is needed stands in preprocessor_config.json and can be done by hand.
# Where it matters: a CPU build of torch of which there is no torchvision: DINOv2 works there and DINOv3 does not.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy==2.4.6 pillow==13.0.0 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - "$work" 2>"$work/errors" <<'PY' || { tail -3 "$work/errors"; exit 1; }
import json, sys
from importlib.util import find_spec
from pathlib import Path
import torch, transformers
from transformers import AutoImageProcessor, AutoModel

print("transformers", transformers.__version__, "torch", torch.__version__, "torchvision", find_spec("torchvision"))
sizes = dict(image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
outcome = {}
for family, processor in (("ViT", "ViTImageProcessor"), ("Dinov2", "BitImageProcessor"), ("DINOv3ViT", "DINOv3ViTImageProcessor"), ("Tipsv2Vision", "Tipsv2ImageProcessor")):
    folder = Path(sys.argv[1], family)
    getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**sizes)).save_pretrained(folder)
    config = {"image_processor_type": processor, "do_resize": True, "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    with torch.inference_mode():
        model = type(AutoModel.from_pretrained(folder)).__name__
    for options in ({}, {"backend": "pil"}):
        try:
            outcome[family, bool(options)] = type(AutoImageProcessor.from_pretrained(folder, **options)).__name__
        except (ImportError, ValueError) as error:
            outcome[family, bool(options)] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:60]}"
        print(f"{model:18} {options or 'no options'!s:18} {outcome[family, bool(options)]}")
for (family, _), found in outcome.items():
    assert found.endswith("Pil") == (family in ("ViT", "Dinov2")), "the behaviour has changed"
PY
