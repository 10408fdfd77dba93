#!/usr/bin/env bash
# One would guess: AutoModel.from_pretrained(FOLDER) gives the same model everywhere, or warns where it does not.
# What happens: where the folder also holds a LoRA adapter (adapter_config.json), the adapter is applied if the package peft is installed,
# and ignored without a word if it is not. The same folder and the same code then give other embeddings.
# Where it matters: an index built on a machine with peft and searched on one without.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 pillow==13.0.0 2>/dev/null
cat > "$work/embed.py" <<'PY'
import sys, warnings
import torch, transformers
from transformers import AutoModel

model = AutoModel.from_pretrained(sys.argv[1]).eval()
pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
with torch.inference_mode():
    torch.save(model(pixels).last_hidden_state[0, 0], sys.argv[2])
PY
"$work/venv/bin/python" - "$work" <<'PY'
import json, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from transformers import ViTConfig, ViTModel

torch.manual_seed(0)
folder = Path(sys.argv[1], "model")
config = ViTConfig(image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
names = [name for name, module in ViTModel(config, add_pooling_layer=False).named_modules() if name.endswith("q_proj")]
assert names
(folder / "adapter_config.json").write_text(json.dumps({
    "peft_type": "LORA", "r": 4, "lora_alpha": 64, "target_modules": ["q_proj"], "bias": "none", "inference_mode": True,
    "task_type": "FEATURE_EXTRACTION", "base_model_name_or_path": str(folder)}))
save_file({f"base_model.model.{name}.lora_{part}.weight": torch.randn((4, 32) if part == "A" else (32, 4))
           for name in names for part in "AB"}, folder / "adapter_model.safetensors")
PY
"$work/venv/bin/python" "$work/embed.py" "$work/model" "$work/without.pt" 2> "$work/without.err"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps peft==0.21.2 accelerate psutil pyyaml 2>/dev/null
"$work/venv/bin/python" "$work/embed.py" "$work/model" "$work/with.pt" 2> "$work/with.err"
"$work/venv/bin/python" - "$work" <<'PY'
import sys, torch, transformers

one, other = (torch.load(f"{sys.argv[1]}/{name}.pt") for name in ("without", "with"))
cosine = torch.nn.functional.cosine_similarity(one, other, dim=0).item()
said = open(f"{sys.argv[1]}/without.err").read()
print(f"transformers {transformers.__version__}, torch {torch.__version__}, peft 0.21.2")
print(f"cosine of the CLS embedding with and without peft installed: {cosine:.3f}")
print("said without peft:", "a word about the adapter" if "adapter" in said.lower() or "peft" in said.lower() else "nothing about the adapter")
assert cosine < 0.99 and "adapter" not in said.lower() and "peft" not in said.lower(), "the behaviour has changed"
PY
