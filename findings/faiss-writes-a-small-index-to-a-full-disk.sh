#!/usr/bin/env bash
# One would guess: faiss.write_index raises where the disk is full, whatever the size of the index.
# What happens: bytes that do not fill a buffer (4 KiB) reach the disk only when the file is closed, and a failure of that is printed
# by the destructor, not raised: write_index returns, and the file is cut off. It depends on the size modulo the buffer, so that
# large indexes fail aloud but for their last bytes. faiss.serialize_index and a file of one's own, with fsync, tells of it.
# Where it matters: tests of an image index on full disks: of 150 sizes of disk, 8 gave a file that was said to be written and could not be read.
set -euo pipefail
[ -e /dev/full ] || { echo "needs /dev/full (Linux)"; exit 1; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - <<'PY'
import faiss, numpy as np

print("faiss", faiss.__version__)
outcome = {}
for count in (1, 10, 40, 100, 1000):
    index = faiss.IndexFlatIP(16)
    index.add(np.ones((count, 16), "float32"))
    size = len(faiss.serialize_index(index))
    try:
        faiss.write_index(index, "/dev/full")
        outcome[size] = "returned as if written"
    except RuntimeError as error:
        outcome[size] = "raised: " + str(error).splitlines()[0][-70:]
    print(f"index of {size} bytes: {outcome[size]}")
small, large = [o for s, o in outcome.items() if s < 4096], [o for s, o in outcome.items() if s > 4096]
assert small and all(o.startswith("returned") for o in small), "the behaviour has changed"
assert large and all(o.startswith("raised") for o in large), "the behaviour has changed"
try:
    with open("/dev/full", "wb") as file:
        file.write(faiss.serialize_index(faiss.IndexFlatIP(16)))
    raise SystemExit("the behaviour has changed")
except OSError as error:
    print("Python's own file:", error.strerror)
PY
