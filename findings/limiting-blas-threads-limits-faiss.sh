#!/usr/bin/env bash
# One would guess: threadpool_limits(1, user_api="blas") of threadpoolctl holds only BLAS to one thread. FAISS spreads its work with
# OpenMP, which has an interface of its own there (user_api="openmp"), so it keeps all threads.
# What happens: the wheel of faiss-cpu has an OpenBLAS that is built on OpenMP, and both share one OpenMP runtime. Within the limit
# faiss.omp_get_max_threads() is 1, searches and trainings of FAISS take one core, and a pool of so many workers has one. After the
# limit it is as before. NumPy's own OpenBLAS has threads of its own and is not why.
# Where it matters: products of NumPy in a pool of threads, held to one BLAS thread each, beside FAISS.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6 threadpoolctl==3.8.0 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - <<'PY'
import os

import faiss
import numpy
import threadpoolctl

print(f"faiss {faiss.__version__}, numpy {numpy.__version__}, threadpoolctl {threadpoolctl.__version__}")
if (os.cpu_count() or 1) < 2:
    raise SystemExit("needs two cores")
for pool in threadpoolctl.threadpool_info():
    print("  ", pool["user_api"], pool["internal_api"], pool.get("threading_layer", ""), os.path.basename(pool["filepath"]), pool["num_threads"])
before = faiss.omp_get_max_threads()
with threadpoolctl.threadpool_limits(1, user_api="blas"):
    within = faiss.omp_get_max_threads()
after = faiss.omp_get_max_threads()
print(f"FAISS's threads: {before} before, {within} within a limit of BLAS, {after} after it")
assert before > 1 and within == 1 and after == before, "the behaviour has changed"
PY
