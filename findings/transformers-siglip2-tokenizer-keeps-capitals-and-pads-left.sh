#!/usr/bin/env bash
# SigLIP 2 was trained with texts in lower case, padded on the right to 64 tokens, padding attended to. The hub's checkpoints of a
# fixed size are of model_type `siglip` with GemmaTokenizer. One would guess: `do_lower_case: true` in tokenizer_config.json does what
# it says, and padding="max_length" pads. What happens: capitals stay; without a max_length nothing is padded (model_max_length is
# 1e30); without `padding_side` in the file, padding is on the left, and SigLIP reads its vector at the last token; a mask, which the
# tokenizer gives unless model_input_names leaves it out, makes another vector. Siglip2Tokenizer lowers, but is for NaFlex's siglip2.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 2>/dev/null || { echo "cannot be installed"; exit 1; }
cat > "$work/tokens.py" <<'PY'
import sys, torch, transformers as t
from transformers.utils import logging
logging.set_verbosity(logging.CRITICAL)
print("transformers", t.__version__)
words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", "a", "A"]
t.GemmaTokenizer(vocab={word: n for n, word in enumerate(words)}, merges=[], add_bos_token=False, add_eos_token=True, do_lower_case=True).save_pretrained(sys.argv[1])
small = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
model = t.SiglipModel(t.SiglipConfig(text_config=dict(small, vocab_size=8, projection_size=16), vision_config=dict(small, image_size=16, patch_size=8))).eval()
model.config.save_pretrained(sys.argv[1])
tokenizer = t.AutoTokenizer.from_pretrained(sys.argv[1])
low, high = tokenizer("a")["input_ids"], tokenizer("A")["input_ids"]
unpadded = len(tokenizer("a", padding="max_length")["input_ids"])
padded = tokenizer(["a"], padding="max_length", max_length=64, return_tensors="pt")
with torch.no_grad():
    masked = model.get_text_features(**padded).pooler_output
    plain = model.get_text_features(input_ids=padded["input_ids"]).pooler_output
print(f"  {type(tokenizer).__name__}: 'a' {low}, 'A' {high}; padded to {unpadded}; on the {tokenizer.padding_side}; with a mask, "
      f"the cosine is {float(torch.nn.functional.cosine_similarity(masked, plain)):.3f}")
assert low != high and unpadded == 2 and tokenizer.padding_side == "left" and (masked - plain).abs().max() > 1e-6, "it has changed"
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/tokens.py" "$work/checkpoint"
