#!/usr/bin/env bash
# One would guess: numpy.bitwise_count(a ^ b) of two 64-bit perceptual hashes, kept as SQLite keeps them (signed integers),
# is their Hamming distance, as POPCNT in C or a Python integer masked to 64 bits gives it.
# What happens: NumPy counts the bits of the ABSOLUTE value. Where the first bit differs, the difference is negative, and the
# count is another: hashes that differ in all 64 bits have a distance of 1, and pass for copies. Viewed as uint64, it is right.
# Where it matters: folding near-duplicates by hashes read from SQLite, which has no unsigned 64-bit integers.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import random
import sqlite3

import numpy as np

print("numpy", np.__version__, "sqlite", sqlite3.sqlite_version)
random.seed(0)
one = 0x3A5C_96E1_0F77_1234
others = [one ^ 0xFFFF_FFFF_FFFF_FFFF, *(one ^ random.getrandbits(64) for _ in range(10_000))]
signed = [value - 2**64 if value >= 2**63 else value for value in (one, *others)]
database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE hashes (hash INTEGER)")
database.executemany("INSERT INTO hashes VALUES (?)", [(value,) for value in signed])
kept = np.array([row[0] for row in database.execute("SELECT hash FROM hashes ORDER BY rowid")], dtype=np.int64)

true = np.array([(one ^ other).bit_count() for other in others])
counted = np.bitwise_count(kept[1:] ^ kept[0])
viewed = np.bitwise_count((kept[1:] ^ kept[0]).view(np.uint64))
print("all 64 bits differ: signed", counted[0], "unsigned", viewed[0])
print(f"wrong for {np.mean(counted != true):.0%} of random hashes; unsigned for {np.mean(viewed != true):.0%}")
assert true[0] == viewed[0] == 64 and counted[0] == 1
assert np.mean(counted != true) > 0.4
assert (viewed == true).all()
PY
