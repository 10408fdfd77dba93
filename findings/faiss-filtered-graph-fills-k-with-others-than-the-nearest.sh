#!/usr/bin/env bash
# One would guess: an HNSW search with an IDSelector finds the nearest of those selected about as well as one without a selector finds
# the nearest, or gives fewer than k (-1) where the walk met too few, so that a full answer is a good one.
# What happens: the walk goes where it would go without a filter and stops after efSearch steps; it returns what selected ones it passed by.
# With 3% selected nearly every answer has its ten hits, and a third of the ten nearest are missing; with 1% half are empty.
# A larger efSearch moves the point, and does not end it. Fewer than some thousand are quicker compared one by one.
# Where it matters: filters of an image search: recall .1 where the images farthest from the query were chosen, or the nearest removed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6 2>/dev/null || { echo "cannot be installed"; exit 1; }
OMP_NUM_THREADS=1 "$work/venv/bin/python" - <<'PY'
import faiss, numpy as np

print("faiss", faiss.__version__, "numpy", np.__version__)
random = np.random.default_rng(0)
centres = random.normal(size=(100, 64))


def unit(count):
    rows = centres[random.integers(0, 100, count)] + 0.7 * random.normal(size=(count, 64))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")


data, queries = unit(20_000), unit(200)
graph = faiss.IndexHNSWFlat(64, 32, faiss.METRIC_INNER_PRODUCT)
graph.hnsw.efConstruction = 100
graph.add(data)
measured = {}
for share in (1, 0.5, 0.03, 0.01):
    chosen = np.flatnonzero(random.random(len(data)) < share)
    true = chosen[np.argsort(-(queries @ data[chosen].T), axis=1)[:, :10]]
    for wide in (64, 512):
        options = faiss.SearchParametersHNSW(sel=faiss.IDSelectorBatch(chosen), efSearch=wide)
        found = graph.search(queries, 10, params=options)[1]
        recall = np.mean([len(set(row) & set(right)) / 10 for row, right in zip(found, true)])
        measured[share, wide] = (found >= 0).mean(), recall
        print(f"{len(chosen):5} of 20000 selected, efSearch {wide:3}: {measured[share, wide][0]:4.0%} of the places filled, recall {recall:.2f}")
assert measured[1, 64][1] > 0.99 and measured[0.5, 64][1] > 0.99, "the behaviour has changed"
assert measured[0.03, 64][0] > 0.95 and measured[0.03, 64][1] < 0.8, "the behaviour has changed"
assert measured[0.01, 512][0] > 0.99 and measured[0.01, 512][1] < 0.92, "the behaviour has changed"
PY
