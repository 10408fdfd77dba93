#!/usr/bin/env bash
# Guess: recall of an HNSW graph, measured with vectors held out of it, is that of new queries.
# What happens: where every vector has a near copy in the graph (raw files beside developed ones), held-out ones find .96,
# and new ones of the same kind .70, although the copy itself is not counted: it leads the search to their neighbours.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'faiss-cpu==1.15.1' 'numpy==2.4.6'
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import faiss
import numpy as np

print(f"Python {sys.version.split()[0]}, FAISS {faiss.__version__}, numpy {np.__version__}")
random = np.random.default_rng(0)


def unit(rows):
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


pictures = unit(random.normal(size=(10_000, 64)))
data = np.repeat(pictures, 2, axis=0)
data = unit(data + 1e-3 * random.normal(size=data.shape))[random.permutation(20_000)]
graph = faiss.IndexHNSWFlat(64, 32, faiss.METRIC_INNER_PRODUCT)
graph.hnsw.efConstruction = 100
graph.add(data[:19_500])
graph.hnsw.efSearch = 32


def recall(queries):
    true, _ = faiss.knn(queries, data[:19_500], 12, metric=faiss.METRIC_INNER_PRODUCT)
    found, _ = graph.search(queries, 12)
    shares = []
    for best, met in zip(true, found):
        best, met = best[best < 0.98][:10], met[met < 0.98]  # near copies of the query are not counted
        shares.append((met >= best[-1]).sum() / len(best))
    return min(1.0, float(np.mean(np.minimum(shares, 1))))


held_out, new = recall(data[19_500:]), recall(unit(random.normal(size=(500, 64))))
print(f"recall at ef 32: held out {held_out:.2f}, new {new:.2f}")
sys.exit(0 if held_out > new + 0.15 else 1)
PYTHON
