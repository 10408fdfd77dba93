#!/usr/bin/env bash
# One would guess: an index of whole numbers kept as bytes (IndexScalarQuantizer, QT_8bit_direct_signed) compares them with the query
# that it is given; only what is stored is rounded. In any case the dimension and the processor do not change the answer.
# What happens: where the dimension is a multiple of 16 (AVX2) or of 32 (AVX-512), the query's numbers are cut to integers, towards
# zero, first: a query of unit length becomes zeros, and every score 0. Other dimensions, 10 or 65, are right, and so are all without
# SIMD; at 48 one index file answers differently on two processors. A query that is scaled to about +-127 first loses little.
# Where it matters: integer codes of image embeddings (384 numbers), queried by unit vectors: recall .02.
set -euo pipefail
[[ $(uname -m) == x86_64 ]] && grep -qw avx2 /proc/cpuinfo || { echo "needs an x86-64 processor with AVX2"; exit 1; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6 2>/dev/null || { echo "cannot be installed"; exit 1; }
cat > "$work/search.py" <<'PY'
import faiss, numpy as np

print(f"faiss {faiss.__version__}, SIMD level {faiss.SIMDConfig.get_level_name()}")
random = np.random.default_rng(0)
right = {}
for dimension in (10, 48, 65, 384, 768):
    stored = random.integers(-100, 100, (1000, dimension)).astype("float32")
    query = random.normal(size=(1, dimension)).astype("float32")
    query /= np.linalg.norm(query)
    index = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT)
    index.train(stored)
    index.add(stored)
    assert np.array_equal(index.reconstruct_n(0, 1000), stored)  # nothing is lost of what is stored
    best, true = index.search(query, 1)[0][0, 0], (query @ stored.T).max()
    right[dimension] = abs(best - true) < 1e-3 * true
    print(f"  dimension {dimension:3}: best score {best:8.3f}, numpy {true:8.3f}")
    if not right[dimension]:
        assert best == 0
        scale = 127 / np.abs(query).max()
        near = index.search(query * scale, 10)[1][0]
        assert (query @ stored.T).argmax() in near
scalar = faiss.SIMDConfig.get_level_name() == "NONE"
assert right[10] and right[65] and right[384] == right[768] == scalar, "the behaviour has changed"
PY
FAISS_SIMD_LEVEL=NONE "$work/venv/bin/python" "$work/search.py"
FAISS_SIMD_LEVEL=AVX2 "$work/venv/bin/python" "$work/search.py"
"$work/venv/bin/python" "$work/search.py"
