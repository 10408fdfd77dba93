#!/usr/bin/env bash
# One would guess: reading an SQLite file (to hash or copy it) beside an open connection of the same process is harmless.
# What happens: POSIX drops ALL locks of a process on a file when ANY descriptor of it is closed, SQLite's too. In WAL mode the next
# program that opens and closes the database takes itself for the last one and deletes the log under the first. Commits go on,
# synchronous=FULL, and are acknowledged; they go to a deleted file, nobody else sees them, and a kill loses them. Nothing is corrupt.
# Where it matters: checksums of a catalog's pages, read beside SQLite, and the `sqlite3` shell used at the same time.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cat > "$work/other.py" <<'PY'
import sqlite3, sys

connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM t").fetchone()[0])
connection.close()
PY
cat > "$work/writer.py" <<'PY'
import os, signal, sqlite3, subprocess, sys

path, reads, other = sys.argv[1], sys.argv[2] == "reads", sys.argv[3]
connection = sqlite3.connect(path, isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("PRAGMA synchronous = FULL")
connection.execute("CREATE TABLE t (x)")
for number in range(10):
    connection.execute("INSERT INTO t VALUES (?)", (number,))
if reads:
    with open(path, "rb") as file:
        file.read()
subprocess.run([sys.executable, other, path], check=True, capture_output=True)  # somebody looks into it, and closes
for number in range(10):
    connection.execute("INSERT INTO t VALUES (?)", (number,))
print("the writer sees", connection.execute("SELECT count(*) FROM t").fetchone()[0], "rows; its log exists:", os.path.exists(path + "-wal"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
PY
python3 -c 'import sqlite3, sys; print("Python", sys.version.split()[0], "SQLite", sqlite3.sqlite_version)'
for reads in "does not read" reads; do
  echo "a writer that ${reads} its own file:"
  python3 "$work/writer.py" "$work/${reads// /-}.db" "$reads" "$work/other.py" || true
  rows=$(python3 "$work/other.py" "$work/${reads// /-}.db")
  echo "  rows after it was killed: $rows of 20 that were committed"
  python3 -c 'import sqlite3, sys; assert sqlite3.connect(sys.argv[1]).execute("PRAGMA integrity_check").fetchone() == ("ok",)' "$work/${reads// /-}.db"
  [ "$rows" = "$([ "$reads" = reads ] && echo 10 || echo 20)" ] || { echo "the behaviour has changed"; exit 1; }
done
