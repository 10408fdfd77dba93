#!/usr/bin/env bash
# One would guess: a ranked full-text search that is narrowed to some rowids, `SELECT bm25(words) ... WHERE words MATCH ? AND rowid
# IN (...)`, takes as long as the search alone, or less: each row that FTS5 finds is looked up in the list.
# What happens: the planner hands `rowid =` to FTS5, which begins the search again for each rowid of the list, and each time bm25()
# counts again in how many rows each word is. Of 50,000 rows that all have the word, 2,000 allowed rowids take hundreds of times as
# long as with `+rowid IN (...)`, where the plus keeps the list out of FTS5. The plans differ by one character: `INDEX 0:=M1` instead
# of `INDEX 0:M1`. Both answers have the same rows. Without bm25() the list costs a few times as much, not hundreds.
# Where it matters: searching words among the rows that a filter lets through.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check apsw==3.54.1.0 2>/dev/null || { echo "cannot be installed"; exit 1; }
"$work/venv/bin/python" - <<'PY'
import json
import time

import apsw

print(f"SQLite {apsw.sqlite_lib_version()}")
database = apsw.Connection(":memory:")
database.execute("CREATE VIRTUAL TABLE words USING fts5(said)")
with database:
    database.executemany("INSERT INTO words (rowid, said) VALUES (?, ?)", ((row, f"common w{row % 5000}") for row in range(1, 50_001)))
allowed = json.dumps([*range(1, 50_001, 25)])
seconds, answers = {}, {}
for column in ("rowid", "+rowid"):
    query = f"SELECT rowid, bm25(words) FROM words WHERE words MATCH 'common' AND {column} IN (SELECT value FROM json_each(?))"
    began = time.perf_counter()
    answers[column] = database.execute(query, (allowed,)).fetchall()
    seconds[column] = time.perf_counter() - began
    plan = database.execute(f"EXPLAIN QUERY PLAN {query}", (allowed,)).fetchone()[3]
    print(f"{column:7} IN: {len(answers[column]):,} rows in {seconds[column]:.3f} s, {plan}")
assert {row for row, _ in answers["rowid"]} == {row for row, _ in answers["+rowid"]} and len(answers["rowid"]) == 2_000
assert seconds["rowid"] > 20 * seconds["+rowid"], "the behaviour has changed"
PY
