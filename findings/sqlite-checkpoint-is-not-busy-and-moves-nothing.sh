#!/usr/bin/env bash
# One would guess: PRAGMA wal_checkpoint that answers busy = 0 has moved the log into the database; and commit() on a reader's connection,
# or in_transaction = False, says that it holds nothing.
# What happens: PASSIVE, the default, answers busy = 0 also where a reader kept it from moving a single page; only the other two numbers
# tell. The reader is a SELECT of which one row was fetched and the rest was not: it pins the log while its cursor lives,
# in autocommit, where in_transaction is False and commit() does nothing. The log grows for as long. Cursor.close() ends it.
# Where it matters: deciding when the log of a catalog has been moved, beside readers.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 - "$work/a.db" <<'PY'
import os, sqlite3, sys

print("Python", sys.version.split()[0], "SQLite", sqlite3.sqlite_version)
path = sys.argv[1]
writer = sqlite3.connect(path, isolation_level=None)
writer.execute("PRAGMA journal_mode = WAL")
writer.execute("PRAGMA wal_autocheckpoint = 100")
writer.execute("CREATE TABLE t (x)")
writer.execute("INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT hex(randomblob(250)) FROM n")
assert writer.execute("PRAGMA wal_checkpoint (TRUNCATE)").fetchone() == (0, 0, 0)


def grow():
    for _ in range(2000):
        writer.execute("INSERT INTO t VALUES (hex(randomblob(250)))")
    answer = writer.execute("PRAGMA wal_checkpoint").fetchone()
    return answer, os.path.getsize(path + "-wal") // 1024


alone, size_alone = grow()
print(f"no reader:                          busy, pages in the log, pages moved = {alone}; log {size_alone} KiB")
writer.execute("PRAGMA wal_checkpoint (TRUNCATE)")
reader = sqlite3.connect(path)
cursor = reader.execute("SELECT x FROM t")
cursor.fetchone()
reader.commit()
held, size_held = grow()
print(f"one row fetched, then commit():     busy, pages in the log, pages moved = {held}; log {size_held} KiB; in_transaction {reader.in_transaction}")
cursor.close()
after = writer.execute("PRAGMA wal_checkpoint").fetchone()
print(f"cursor closed:                      busy, pages in the log, pages moved = {after}")
assert alone[0] == 0 and alone[1] == alone[2] and size_alone < 2000, "the behaviour has changed"
assert held[0] == 0 and held[1] > 1000 and held[2] == 0 and size_held > 5000 and not reader.in_transaction, "the behaviour has changed"
assert after[1] == after[2], "the behaviour has changed"
PY
