#!/usr/bin/env bash
# One would guess: _distance of a LanceDB search by cosine is 1 - cosine, exactly or nearly, whatever index answers.
# What happens: with a scalar-quantised graph (IVF_HNSW_SQ) it is the squared distance of the unit vectors, twice as large.
# refine_factor, meant for accuracy, halves it, and so does one row added since the index was built: then all hits have 1 - cosine.
# Also, a search that names no metric has L2 without an index, and the index's own metric with one.
# Where it matters: trying engines: scores were compared with NumPy's.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check lancedb==0.40.0 pyarrow==23.0.0 numpy==2.4.6 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - "$work" <<'PY'
import sys
import lancedb, numpy as np, pyarrow as pa
from lancedb.index import HnswSq, IvfFlat

print("lancedb", lancedb.__version__, "pyarrow", pa.__version__)
random = np.random.default_rng(0)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype("float32")


def table_of(first, rows):
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 64)
    return pa.table({"id": pa.array(range(first, first + len(rows))), "vector": vectors})


data = unit(random.normal(size=(5000, 64)))
query = unit(random.normal(size=64))
late = unit(query[None] + 0.16 * random.normal(size=(1, 64)))  # a row that comes after the index; its cosine is about .6
data = np.concatenate([data, late])
cosine = 1 - data @ query
ratio, plain = {}, {}
for name, index in (("no index", None), ("IVF_FLAT", IvfFlat(distance_type="cosine")), ("IVF_HNSW_SQ", HnswSq(distance_type="cosine"))):
    table = lancedb.connect(f"{sys.argv[1]}/db").create_table(name.replace(" ", "_"), table_of(0, data[:5000]))
    if index:
        table.create_index("vector", config=index)
    for refined in (False, True):
        search = table.search(query).distance_type("cosine").limit(5)
        hits = (search.refine_factor(5) if refined else search).to_list()
        ratio[name, refined] = np.mean([hit["_distance"] / cosine[hit["id"]] for hit in hits])
    hit = table.search(query).limit(1).to_list()[0]
    plain[name] = hit["_distance"] / cosine[hit["id"]]
    print(f"{name:12} _distance / (1 - cosine): {ratio[name, False]:.3f}; with refine_factor {ratio[name, True]:.3f}; no metric named: {plain[name]:.3f}")
table.add(table_of(5000, late))
hits = table.search(query).distance_type("cosine").limit(3).to_list()
print("IVF_HNSW_SQ, and a row that came later:", [(hit["id"], round(hit["_distance"], 3), f"1 - cosine {cosine[hit['id']]:.3f}") for hit in hits])
for name in ("no index", "IVF_FLAT"):
    assert abs(ratio[name, False] - 1) < 0.01 and abs(ratio[name, True] - 1) < 0.01, "the behaviour has changed"
assert abs(ratio["IVF_HNSW_SQ", False] - 2) < 0.05 and abs(ratio["IVF_HNSW_SQ", True] - 1) < 0.01, "the behaviour has changed"
assert abs(plain["no index"] - 2) < 0.01 and abs(plain["IVF_FLAT"] - 1) < 0.01, "the behaviour has changed"
assert all(abs(hit["_distance"] / cosine[hit["id"]] - 1) < 0.01 for hit in hits), "the behaviour has changed"
PY
