#!/usr/bin/env bash
# One would guess: output.hidden_states[-1] is output.last_hidden_state, or is it in no vision model of transformers.
# What happens: it depends on the family. In ViT, DeiT, DINOv2, DINOv3, SigLIP, ViT-MSN and I-JEPA the model ends with a LayerNorm that
# hidden_states[-1] does not have; in CLIP, MetaCLIP 2, MLCD and BEiT the two are equal (their norm sits in the pooler). Code that takes
# "layer -1" and was tried on one compares raw and normed embeddings on the next. The shapes are the same, so nothing fails.
# Where it matters: an option that chooses the layer of an embedding, for a dozen families of models.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy==2.4.6 pillow==13.0.0 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - 2>"$work/errors" <<'PY' || { tail -3 "$work/errors"; exit 1; }
import torch, transformers

print("transformers", transformers.__version__, "torch", torch.__version__)
torch.manual_seed(0)
sizes = dict(image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64)
families = dict.fromkeys(("ViT", "DeiT", "Dinov2", "DINOv3ViT", "SiglipVision", "ViTMSN", "IJepa"), False)
families |= dict.fromkeys(("CLIPVision", "MetaClip2Vision", "MLCDVision", "Beit"), True)
for family, expected in families.items():
    model = getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**sizes)).eval()
    with torch.inference_mode():
        output = model(torch.randn(1, 3, 32, 32), output_hidden_states=True)
    last, listed = output.last_hidden_state, output.hidden_states[-1]
    same = last.shape == listed.shape and torch.allclose(last, listed, atol=1e-5)
    print(f"{family:16} {tuple(last.shape)} {len(output.hidden_states)} hidden states; the last is last_hidden_state: {same}")
    assert last.shape == listed.shape and same == expected, "the behaviour has changed"
PY
