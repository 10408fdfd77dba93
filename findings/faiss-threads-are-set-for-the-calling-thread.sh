#!/usr/bin/env bash
# One would guess: faiss.omp_set_num_threads(1), once at the start, makes every search of the process run on one thread.
# What happens: OpenMP keeps the number for each calling thread. A thread that the program starts later (a web server's executor)
# has the default again, all cores, and its first search starts a pool of its own, which stays as long as it lives: eight
# threads that search once, each with the default of four, leave 24 more behind. OMP_NUM_THREADS=1 in the environment holds for all.
# Where it matters: a search server whose worker threads each call FAISS; it searches from a few fixed threads now.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6 2>/dev/null || { echo "cannot be installed"; exit 1; }
cat > "$work/threads.py" <<'PY'
import os, threading
import faiss, numpy as np

faiss.omp_set_num_threads(1)
index = faiss.IndexFlatIP(64)
index.add(np.random.default_rng(0).normal(size=(20_000, 64)).astype("float32"))
queries = np.ones((100, 64), "float32")
index.search(queries, 5)  # numpy, BLAS and FAISS have what they need


def count():
    return len(os.listdir("/proc/self/task"))


before, said, done, stay = count(), [], threading.Barrier(9), threading.Event()


def work():
    said.append(faiss.omp_get_max_threads())
    index.search(queries, 5)
    done.wait()
    stay.wait()


workers = [threading.Thread(target=work) for _ in range(8)]
for worker in workers:
    worker.start()
done.wait()
extra = count() - before - len(workers)
stay.set()
print(f"main thread: {faiss.omp_get_max_threads()}; its eight workers: {said}; threads beside them: {extra}")
PY
"$work/venv/bin/python" -c 'import faiss; print("faiss", faiss.__version__)'
default=$(OMP_NUM_THREADS=4 "$work/venv/bin/python" "$work/threads.py"); echo "default of four: $default"
limited=$(OMP_NUM_THREADS=1 "$work/venv/bin/python" "$work/threads.py"); echo "default of one:  $limited"
[[ $default == "main thread: 1; its eight workers: [4, 4, 4, 4, 4, 4, 4, 4]; threads beside them: 24" ]] || { echo "the behaviour has changed"; exit 1; }
[[ $limited == *"threads beside them: 0" ]] || { echo "the behaviour has changed"; exit 1; }
