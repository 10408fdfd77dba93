#!/usr/bin/env bash
# One would guess: label != "cat", not (label == "cat") and label not in ["cat"] choose the same rows: those without a label too, as in a
# programming language, or none of those, as in SQL.
# What happens: in milvus-lite the first two leave out the rows that have no such key (of the dynamic field), and the third takes them.
# So a client that writes its condition as a list gets other rows than one that compares. Of a key that no row has, != finds none.
# label is null or label != "cat" says what is meant.
# Where it matters: trying engines under one language of filters; != lost the images without the key.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check milvus-lite==3.2.2 pymilvus==3.0.2 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - "$work" 2>"$work/errors" <<'PY' || { tail -3 "$work/errors"; exit 1; }
import sys
from importlib.metadata import version
from pymilvus import MilvusClient

print("milvus-lite", version("milvus-lite"), "pymilvus", version("pymilvus"))
client = MilvusClient(sys.argv[1] + "/milvus.db")
client.create_collection("images", dimension=4, metric_type="IP")
labels = ["cat", "dog", None] * 3
client.insert("images", [{"id": i, "vector": [1.0, i, 0, 0]} | ({"label": label} if label else {}) for i, label in enumerate(labels)])
print("labels:", dict(enumerate(labels)))
expected = {
    'label != "cat"': [1, 4, 7],
    'not (label == "cat")': [1, 4, 7],
    'label not in ["cat"]': [1, 2, 4, 5, 7, 8],
    "label is null": [2, 5, 8],
    'label is null or label != "cat"': [1, 2, 4, 5, 7, 8],
    'nothing != "cat"': [],
}
for condition, ids in expected.items():
    found = sorted(row["id"] for row in client.query("images", filter=condition, output_fields=["id"]))
    print(f"{condition:32} {found}")
    assert found == ids, "the behaviour has changed"
PY
