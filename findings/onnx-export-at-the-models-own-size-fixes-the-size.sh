#!/usr/bin/env bash
# One would guess: torch.onnx.export with dynamic height and width (Dim.DYNAMIC) of a ViT that interpolates its positions runs at every
# size, whichever size the example has; where that is impossible it raises, as torch.export does for a size that is specialised.
# What happens: with an example of the size that the checkpoint was trained at, the way to start with, export succeeds, and onnxruntime
# fails at every other size. transformers returns the positions as they are where the patches are as many as trained with and height
# equals width; that branch is baked in. Height and width become one name, still said to be free. An example of any other size is right.
# Where it matters: exporting a DINOv2 for images of any size.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6 pillow==13.0.0 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - "$work" 2>"$work/errors" <<'PY' || { tail -3 "$work/errors"; exit 1; }
import sys
import numpy as np, onnxruntime, torch, transformers

print("torch", torch.__version__, "transformers", transformers.__version__, "onnxruntime", onnxruntime.__version__)
torch.manual_seed(0)
config = transformers.Dinov2Config(image_size=56, patch_size=14, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)


class Embedder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = transformers.Dinov2Model(config)

    def forward(self, pixels):
        return self.model(pixels).last_hidden_state[:, 0]


embedder, free = Embedder().eval(), torch.export.Dim.DYNAMIC
works = {}
for example in ((56, 56), (84, 84), (84, 56)):
    path = f"{sys.argv[1]}/{example[0]}x{example[1]}.onnx"
    torch.onnx.export(embedder, (torch.randn(2, 3, *example),), path, input_names=["pixels"], dynamic_shapes={"pixels": {0: free, 2: free, 3: free}}, dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options)
    said = session.get_inputs()[0].shape
    assert not any(isinstance(side, int) for side in said[2:]), "the behaviour has changed"
    for size in ((56, 56), (84, 84), (112, 84)):
        pixels = torch.randn(1, 3, *size)
        with torch.inference_mode():
            true = embedder(pixels).numpy()
        try:
            works[example, size] = np.allclose(session.run(None, {"pixels": pixels.numpy()})[0], true, atol=1e-4)
        except Exception as error:  # onnxruntime has no common class for its errors
            works[example, size] = type(error).__name__
    print(f"example {example}: input {said}; right at", {size: works[example, size] for size in ((56, 56), (84, 84), (112, 84))})
for (example, size), right in works.items():
    assert (right is True) == (example != (56, 56) or size == (56, 56)), "the behaviour has changed"
PY
