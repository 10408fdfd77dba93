#!/usr/bin/env bash
# One would guess: in an exact index (IndexFlat) equal vectors have equal scores, and among equal ones the order is by id, or at least the
# same whatever else is asked in the same call.
# What happens: by inner product the LATER id comes first, by L2 the earlier. From 128,000 numbers in the queries on (167 of 768;
# faiss.cvar.distance_compute_blas_threshold, which counted queries in older versions) scores come from a matrix product, whose last bits
# depend on where a vector stands in its block: equal vectors then have different scores, and the order of copies is another than if
# each query is asked alone.
# Where it matters: an image index that promises ties by id; the order of copies changed between its two parts and with the size of a batch.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6 2>/dev/null || { echo "cannot be installed"; exit 1; }
OMP_NUM_THREADS=1 "$work/venv/bin/python" - <<'PY'
import faiss, numpy as np

print("faiss", faiss.__version__, "numpy", np.__version__)
random = np.random.default_rng(0)
apart, moved = 0, 0
for dimension in (384, 768):
    distinct = random.normal(size=(1500, dimension)).astype("float32")
    data = np.concatenate([distinct / np.linalg.norm(distinct, axis=1, keepdims=True)] * 2)[:2000]  # 0 to 499 are 1500 to 1999 again
    queries = data[:200] + (0.5 * random.normal(size=(200, dimension)) / dimension**0.5).astype("float32")
    for name, index in (("inner product", faiss.IndexFlatIP(dimension)), ("L2", faiss.IndexFlatL2(dimension))):
        index.add(data)
        ways = {"batch": index.search(queries, 20), "alone": [np.concatenate(rows) for rows in zip(*(index.search(query[None], 20) for query in queries))]}
        for way, (scores, ids) in ways.items():
            place = [{int(i): k for k, i in enumerate(row) if i >= 0} for row in ids]
            pairs = [(row, at[i], at[i + 1500]) for row, at in enumerate(place) for i in at if i < 500 and i + 1500 in at]
            other = sum(scores[row, one] != scores[row, copy] for row, one, copy in pairs)
            later = sum(copy < one for _, one, copy in pairs)
            print(f"{dimension} numbers, {name:13}, {way}: of {len(pairs)} pairs of equal vectors {other} differ in score, {later} have the later id first")
            if way == "alone":
                assert other == 0 and later == (len(pairs) if name == "inner product" else 0), "the behaviour has changed"
            apart += other * (way == "batch")
        moved += int((ways["batch"][1] != ways["alone"][1]).sum())
print(f"places of {4 * 200 * 20} that a batch fills with another id than single queries do: {moved}")
assert apart > 0 and moved > 0, "the behaviour has changed"
PY
