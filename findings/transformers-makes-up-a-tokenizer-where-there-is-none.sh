#!/usr/bin/env bash
# One would guess: AutoTokenizer fails for a checkpoint's folder without a vocabulary. What happens: for CLIP, MetaCLIP 2 and
# Chinese-CLIP it makes a tokenizer of 2 to 5 tokens, with no word: every text of as many words or letters is the same. And a text
# whose end-of-text token is not config.text_config.eos_token_id is read at its first token, where all texts of a CLIP are equal.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 2>/dev/null || { echo "cannot be installed"; exit 1; }
cat > "$work/load.py" <<'PY'
import sys, torch, transformers as t
from transformers.utils import logging
logging.set_verbosity(logging.CRITICAL)
print("transformers", t.__version__)
sizes = {}
for kind in ("CLIP", "MetaClip2", "ChineseCLIP"):
    folder = f"{sys.argv[1]}/{kind}"
    getattr(t, f"{kind}Config")().save_pretrained(folder)
    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    one, other = tokenizer(["red", "cat"])["input_ids"]
    sizes[kind] = len(tokenizer)
    print(f"  {kind}: a {type(tokenizer).__name__} of {len(tokenizer)} tokens; 'red' {one}, 'cat' {other}")
    assert one == other, "it has changed"
assert sizes == {"CLIP": 2, "MetaClip2": 5, "ChineseCLIP": 5}, "it has changed"
text = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=20, eos_token_id=7, bos_token_id=18, pad_token_id=19)
model = t.CLIPTextModel(t.CLIPTextConfig(**text)).eval()
with torch.no_grad():
    one, other = model(input_ids=torch.tensor([[18, 3, 4, 19], [18, 5, 6, 19]])).pooler_output
print("  two texts that end with token 19, where 7 is configured, differ by", float((one - other).abs().max()))
assert torch.equal(one, other), "it has changed"
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/load.py" "$work"
