#!/usr/bin/env bash
# One would guess: ViTMAEModel.from_pretrained(...).eval() embeds an image as a ViT does; masking is for pretraining, like dropout.
# What happens: it drops 75% of the patches at random in eval mode too, and shuffles the rest: the same image has another embedding each
# time, and last_hidden_state has a quarter of the tokens, whose order says nothing. AutoModel gives this class for facebook/vit-mae-*.
# mask_ratio = 0 keeps all patches, but still shuffles them: CLS and the mean are then stable; patches need noise= in rising order.
# Where it matters: a list of the models that an image index can embed with.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy==2.4.6 pillow==13.0.0 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - "$work" 2>"$work/errors" <<'PY' || { tail -3 "$work/errors"; exit 1; }
import sys
import torch, transformers
from transformers import AutoModel, ViTMAEConfig, ViTMAEModel

print("transformers", transformers.__version__, "torch", torch.__version__)
torch.manual_seed(0)
config = ViTMAEConfig(image_size=64, patch_size=8, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, initializer_range=0.2)
ViTMAEModel(config).save_pretrained(sys.argv[1] + "/model")
pixels = torch.randn(1, 3, 64, 64)


@torch.inference_mode()
def twice(model, **options):
    one, other = (model(pixels, **options).last_hidden_state for _ in range(2))
    gap = [(a - b).abs().max().item() for a, b in ((one[:, 0], other[:, 0]), (one[:, 1:], other[:, 1:]))]
    print(f"  {one.shape[1]} tokens; two calls differ by {gap[0]:.4f} in CLS, {gap[1]:.4f} in the patches")
    return one.shape[1], gap[0] > 1e-3, gap[1] > 1e-3


model = AutoModel.from_pretrained(sys.argv[1] + "/model").eval()
print(type(model).__name__, "as it is, training =", model.training)
assert twice(model) == (17, True, True), "the behaviour has changed"
model = AutoModel.from_pretrained(sys.argv[1] + "/model", mask_ratio=0.0).eval()
print("mask_ratio = 0")
assert twice(model) == (65, False, True), "the behaviour has changed"
print("mask_ratio = 0, noise in order")
assert twice(model, noise=torch.linspace(0, 1, 64)[None]) == (65, False, False), "the behaviour has changed"
PY
