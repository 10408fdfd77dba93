#!/usr/bin/env bash
# One would guess: MatchValue(True) finds the points whose payload says true; the signature says value: str | int | bool.
# What happens: in qdrant-edge-py True is taken for an int first (it is one in Python) and becomes 1. Payloads keep booleans as booleans,
# and 1 is no match for true: the filter finds nothing, with an index on the field or without, and no error says so. A field of
# 0 and 1 works with both. Negated (must_not), the same condition lets everything through.
# Where it matters: trying engines under one language of filters.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check qdrant-edge-py==0.9.0 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - "$work" <<'PY'
import sys
from importlib.metadata import version
from pathlib import Path
import qdrant_edge as qdrant

print("qdrant-edge-py", version("qdrant-edge-py"))
folder = Path(sys.argv[1], "shard")
folder.mkdir()
shard = qdrant.EdgeShard.create(str(folder), qdrant.EdgeConfig(vectors=qdrant.EdgeVectorParams(size=2, distance=qdrant.Distance.Dot)))
points = [qdrant.Point(i, [1.0, i], {"favourite": i < 4, "flag": int(i < 4)}) for i in range(10)]
shard.update(qdrant.UpdateOperation.upsert_points(points))
print("stored payload:", shard.retrieve([0], True, False)[0].payload)


def count(field, value, negated=False):
    condition = [qdrant.FieldCondition(key=field, match=qdrant.MatchValue(value))]
    chosen = qdrant.Filter(must_not=condition) if negated else qdrant.Filter(must=condition)
    return shard.count(qdrant.CountRequest(exact=True, filter=chosen))


print("MatchValue(True).value:", repr(qdrant.MatchValue(True).value))
for indexed in (False, True):
    if indexed:
        shard.update(qdrant.UpdateOperation.create_field_index("favourite", qdrant.PayloadSchemaType.Bool))
    found = {(field, value): count(field, value) for field in ("favourite", "flag") for value in (True, False)}
    print(f"boolean index: {indexed}; found: {found}; not favourite=True: {count('favourite', True, negated=True)} of 10")
    assert found == {("favourite", True): 0, ("favourite", False): 0, ("flag", True): 4, ("flag", False): 6}, "the behaviour has changed"
    assert count("favourite", True, negated=True) == 10, "the behaviour has changed"
PY
