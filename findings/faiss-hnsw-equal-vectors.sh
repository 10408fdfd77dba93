#!/usr/bin/env bash
# One would guess: a graph over a collection of which half are copies of ONE vector finds other vectors about as well as
# a graph over the distinct ones, since copies only add equal distances.
# What happens: FAISS's HNSW links the copies to each other until their lists are full, and the rest is cut off. Recall of the
# ten nearest of fresh queries falls by more than a third; adding each distinct vector once restores it.
# Where it matters: an index of images in which one placeholder picture was stored thousands of times.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import faiss, numpy as np

print("faiss", faiss.__version__, "numpy", np.__version__)
faiss.omp_set_num_threads(1)
random = np.random.default_rng(0)


def unit(count):
    centres = np.random.default_rng(1).normal(size=(200, 64))
    data = centres[random.integers(0, 200, count)] + 0.6 * random.normal(size=(count, 64))
    return (data / np.linalg.norm(data, axis=1, keepdims=True)).astype("float32")


distinct, queries = unit(10_000), unit(500)
copies = np.repeat(distinct[:1], 10_000, axis=0)
mixed = np.concatenate([distinct, copies])
order = random.permutation(len(mixed))
truth = faiss.knn(queries, distinct, 10, metric=faiss.METRIC_INNER_PRODUCT)[1]


def recall(vectors, names):
    graph = faiss.IndexHNSWFlat(64, 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = 100, 64
    graph.add(vectors)
    found = names[graph.search(queries, 10)[1]]
    return np.mean([len(set(row) & set(true)) / 10 for row, true in zip(found, truth)])


names = np.where(np.arange(len(mixed)) < len(distinct), np.arange(len(mixed)), 0)
alone, together = recall(distinct, np.arange(len(distinct))), recall(mixed[order], names[order])
print(f"recall@10 of fresh queries: distinct vectors only {alone:.3f}; with as many copies of one vector {together:.3f}")
assert alone > 0.95 and together < 0.67 * alone, "the behaviour has changed"
PY
