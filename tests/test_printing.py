"""Promises of what commands print: any name, into any stream, and none of them drives a terminal."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from conftest import COMMAND, draw_picture, run_cli

from api.cli import main

Built = tuple[Path, Path]
JAPANESE, DRIVING = "日本🐱.png", "a\x1b]0;owned\x07\x1b[2J\x9b1m\u202egnp.png"
"""A name that few encodings have, and one that sets a title, clears the screen and turns the text round."""


class Stream(io.TextIOWrapper):
    """A stdout of some encoding that may be a terminal."""

    def __init__(self, encoding: str, *, terminal: bool = False) -> None:
        self.written = io.BytesIO()
        self.terminal = terminal
        super().__init__(self.written, encoding=encoding, write_through=True)

    def isatty(self) -> bool:
        return self.terminal


def run(*arguments: str | Path, encoding: str = "utf-8", terminal: bool = False, check: int = 0) -> tuple[bytes, bytes]:
    """Run the command line with streams as the system gives them; what it wrote to stdout and stderr."""
    out, err = Stream(encoding, terminal=terminal), Stream(encoding, terminal=terminal)
    err.reconfigure(errors="backslashreplace")
    words = ["lookalike", *map(os.fspath, arguments)]
    with (
        mock.patch.multiple(sys, stdout=out, stderr=err, argv=words),
        mock.patch.dict(os.environ, {"TERM": "dumb"}),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    out.flush()
    assert int(ended.value.code or 0) == check, (ended.value.code, err.written.getvalue())
    return out.written.getvalue(), err.written.getvalue()


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Built:
    """A folder of strange names, one of them of a file that is not a picture, and an index of it."""
    base = tmp_path_factory.mktemp("named")
    photos = base / "photos"
    photos.mkdir()
    draw_picture("red", "circle", 0).save(photos / "plain.png")
    draw_picture("blue", "square", 1).save(photos / JAPANESE)
    draw_picture("green", "stripes", 2).save(photos / DRIVING)
    draw_picture("teal", "circle", 3).save(photos / "two\nlines.png")
    (photos / "壊\x1b[31m.png").write_bytes(b"x")
    (photos / "壊\x1b[31m.jpg").write_bytes(b"x")
    run_cli("build", photos, "--index", base / "i", "--model", checkpoint, check=3)
    return photos, base / "i"


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8"])
def test_any_name_is_written_to_a_stream_of_any_encoding(named: Built, encoding: str) -> None:
    photos, index = named
    search = ("search", photos / "plain.png", "--index", index)
    lines = run(*search, encoding=encoding)[0].decode(encoding)
    assert ("日本" if encoding == "utf-8" else "\\u65e5\\u672c") in lines
    found = json.loads(run(*search, "--json", encoding=encoding)[0].decode(encoding))
    assert {Path(hit["path"]).name for hit in found["hits"]} == {"plain.png", JAPANESE, DRIVING, "two\nlines.png"}
    _, err = run("build", photos, "--index", index, encoding=encoding, check=3)
    assert ("壊" if encoding == "utf-8" else "\\u58ca") in err.decode(encoding)
    failed = json.loads(run("build", photos, "--index", index, "--json", encoding=encoding, check=3)[0])["failed"]
    assert {Path(one["path"]).name for one in failed} == {"壊\x1b[31m.png", "壊\x1b[31m.jpg"}
    run("models", encoding=encoding)
    run("models", encoding=encoding, terminal=True)


def test_paths_in_a_pipe_are_the_names_on_disk_byte_for_byte(named: Built) -> None:
    photos, index = named
    search = ("search", photos / "plain.png", "--index", index, "--paths")
    on_disk = sorted(os.fsencode(photos / name) for name in ("plain.png", JAPANESE, DRIVING, "two\nlines.png"))
    for encoding in ("utf-8", "cp1252"):
        out, err = run(*search, "-0", encoding=encoding)
        assert sorted(out.split(b"\0")[:-1]) == on_disk
        assert err == b""
    out, err = run(*search)
    assert all(path in out for path in on_disk)
    assert b"line break" in err
    assert b"-0" in err
    _, err = run("search", photos / "plain.png", "--index", index, "-0", check=2)
    assert b"--paths" in err


def test_no_name_drives_a_terminal(named: Built) -> None:
    photos, index = named
    search = ("search", photos / "plain.png", "--index", index)
    for flags in ((), ("--paths",), ("--json",)):
        out, _ = run(*search, *flags, terminal=True)
        assert not set(out.decode()) & {"\x1b", "\x07", "\x9b", "\u202e"}, flags
        assert out.count(b"\n") == (1 if flags == ("--json",) else 4)
        assert b"owned" in out
    _, err = run("build", photos, "--index", index, terminal=True, check=3)
    assert b"\x1b[31m" not in err
    assert b"\\x1b[31m.jpg" in err
    _, err = run("remove", index, photos / DRIVING, photos / ("no" + DRIVING), "--json", terminal=True, check=3)
    assert b"\x1b" not in err


@pytest.mark.parametrize(
    "words",
    [
        ["search", "x.png", "--index", "no\x1b[2Jsuch"],
        ["build", "no\x1b[2Jsuch"],
        ["build", "x", "--files-from", "no\x1b[2Jsuch"],
        ["build", "x", "--metadata", "no\x1b[2Jsuch"],
        ["info", "no\x1b[2Jsuch"],
        ["move-root", "x", "y", "no\x1b[2Jsuch"],
        ["models", "more\x1b[2J"],
        ["models", "--no\x1b[2Jsuch"],
        ["no\x1b[2Jsuch"],
    ],
)
def test_errors_show_names_that_would_drive_a_terminal_escaped(words: list[str], tmp_path: Path) -> None:
    with mock.patch.dict(os.environ, {"LOOKALIKE_INDEX": str(tmp_path / "i")}):
        _, err = run(*words, terminal=True, check=2)
    assert b"\x1b" not in err
    assert b"x1b[2J" in err


def test_a_name_that_is_not_valid_unicode_is_shown_escaped(tmp_path: Path) -> None:
    _, err = run("info", tmp_path / "caf\udce9", check=2)
    assert b"caf\\udce9" in err


@pytest.mark.slow
def test_a_locale_of_another_encoding_does_not_keep_names_from_being_read(tmp_path: Path) -> None:
    (tmp_path / "日本").mkdir()
    draw_picture("red", "circle", 0).save(tmp_path / "日本" / JAPANESE)
    arguments = ["build", tmp_path / "日本", "--index", tmp_path / "索引", "--dry-run"]
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run([*COMMAND, *arguments], env={**os.environ, **locale}, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, b"Would be: 1 added\n"), ended.stderr
    ended = subprocess.run(
        [*COMMAND, "info", tmp_path / "索引"], env={**os.environ, **locale}, capture_output=True, check=False
    )
    assert ended.returncode == 2
    assert b"\\u7d22\\u5f15" in ended.stderr, "what the stream lacks is shown escaped"
