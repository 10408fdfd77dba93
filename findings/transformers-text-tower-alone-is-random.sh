#!/usr/bin/env bash
# One would guess: a tower's class (ChineseCLIPTextModel, AltCLIPTextModel, AltCLIPVisionModel) loads its part of a checkpoint of both
# towers, as CLIPTextModel does. What happens: every weight stays random, and only `output_loading_info` tells it. The text towers do
# not look behind the prefix `text_model.`; the image tower's `layers` are renamed to `layer`, which is meant for the text tower.
# AltCLIPModel.save_pretrained writes `vision_model.encoder.layer.0`, where the hub has `layers.0`. The whole class loads either.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 2>/dev/null || { echo "cannot be installed"; exit 1; }
cat > "$work/load.py" <<'PY'
import sys, torch, transformers as t
from transformers.utils import logging
logging.set_verbosity(logging.CRITICAL)
print("transformers", t.__version__, "torch", torch.__version__)
vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8)
text = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=20, bos_token_id=0, eos_token_id=2, pad_token_id=1)
wrong = {}
for kind in ("CLIP", "ChineseCLIP", "AltCLIP"):
    whole = getattr(t, f"{kind}Model")(getattr(t, f"{kind}Config")(text_config=text, vision_config=vision))
    folder = f"{sys.argv[1]}/{kind}"
    whole.save_pretrained(folder)
    for tower, part in (("Text", whole.text_model), ("Vision", whole.vision_model)):
        loaded = getattr(t, f"{kind}{tower}Model").from_pretrained(folder)
        pairs = [(weight, part.state_dict()[name]) for name, weight in loaded.state_dict().items()
                 if name.endswith(("q_proj.weight", "query.weight"))]
        wrong[kind, tower] = not all(torch.equal(one, other) for one, other in pairs)
        print(f"  {kind}{tower}Model: {'random' if wrong[kind, tower] else 'as saved'}")
assert [name for name, bad in wrong.items() if bad] == [("ChineseCLIP", "Text"), ("AltCLIP", "Text"), ("AltCLIP", "Vision")], "it has changed"
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/load.py" "$work"
