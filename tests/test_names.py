"""Promises about names: lists of them, accents in either form, and tables as spreadsheets write them."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize
from unittest import mock

import pytest
from conftest import draw_picture, run_cli

from api.http.access import read_keys
from indexer.errors import ListInvalid, MetadataInvalid
from indexer.lists import read_list
from indexer.metadata import read_metadata
from indexer.sources import as_on_disk
from search.index import Index

Build = Callable[..., dict[str, Any]]
STRANGE = (
    "c d.jpg",
    "e\u2028f.jpg",
    "g\u0085h.jpg",
    "i'\"j.jpg",
    "k\\l.jpg",
    " m .jpg",
    "n%20#?.jpg",
    "o\x1cp.jpg",
    "v\x0bw.jpg",
)
CAFE, MUELLER = normalize("NFC", "Café"), normalize("NFC", "Müller.png")


def decomposed(name: str) -> str:
    return normalize("NFD", name)


@pytest.fixture
def build(tmp_path: Path, checkpoint: Path) -> Build:
    """Builds `test.index`; returns the answer of `--json`."""

    def run(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
        model = () if (tmp_path / "test.index").exists() else ("--model", checkpoint)
        command = ("build", *arguments, "--index", tmp_path / "test.index", "--json", *model)
        answer: dict[str, Any] = json.loads(run_cli(*command, check=code).stdout)
        return answer

    return run


@pytest.fixture
def mac(tmp_path: Path) -> Path:
    """A folder and a picture named on a Mac, and one beside them."""
    folder = tmp_path / "photos" / decomposed(CAFE)
    folder.mkdir(parents=True)
    draw_picture("red", "circle", 0).save(folder / decomposed(MUELLER))
    draw_picture("blue", "square", 1).save(tmp_path / "photos" / "plain.png")
    return tmp_path / "photos"


def labels(index: Path) -> dict[str, tuple[str, ...]]:
    with Index.open(index) as opened:
        records, _ = opened.catalog.page(0, 1000)
    return {Path(path).name: record.labels for record in records for path in record.paths}


def test_a_list_is_split_at_line_ends_only() -> None:
    expected = [Path(name) for name in STRANGE]
    for end in ("\n", "\r\n"):
        text = "".join(f"{name}{end}" for name in STRANGE)
        for data in (
            text.encode(),
            text.encode("utf-8-sig"),
            text.encode("utf-16"),
            b"\xfe\xff" + text.encode("utf-16-be"),
        ):
            assert read_list(data) == expected
    assert read_list(b"a.jpg\n\n  \nb.jpg") == [Path("a.jpg"), Path("b.jpg")]
    assert read_list(b"caf\xe9.jpg\n") == [Path("caf\udce9.jpg")], "bytes that are not UTF-8 stay what they are"


def test_a_list_of_find_print0_may_hold_any_name() -> None:
    names = (*STRANGE, "a\nb.jpg", "c\r", " ")
    data = "\0".join(names).encode()
    assert read_list(data, null=True) == read_list(data + b"\0", null=True) == [Path(name) for name in names]
    for broken in (data, "a.jpg\nb.jpg\n".encode("utf-16-le")):
        with pytest.raises(ListInvalid, match="-0"):
            read_list(broken)
    with pytest.raises(ListInvalid, match="UTF-16"):
        read_list(b"\xff\xfea")


def test_paths_of_a_search_are_a_list_for_a_build(tmp_path: Path, build: Build) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    names = (*STRANGE, "a\nb.jpg", "日本.png")
    for number, name in enumerate(names):
        draw_picture("red", "stripes", number % 8, size=96 + number).save(photos / name, format="PNG")
    assert build(photos)["added"] == len(names)
    search = ("search", photos / "c d.jpg", "--index", tmp_path / "test.index", "--paths", "-0", "-k", "100")
    data = run_cli(*search).stdout.encode()
    (tmp_path / "list").write_bytes(data)
    for null in ("-0", "--null"):
        assert build("--files-from", tmp_path / "list", null)["unchanged"] == len(names)
    with mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii")):
        assert build("--files-from", "-", "-0")["unchanged"] == len(names)
    told = run_cli("build", "--files-from", tmp_path / "list", "--index", tmp_path / "test.index", check=2).stderr
    assert "-0" in told
    assert "internal" not in told
    assert "--files-from" in run_cli("build", photos, "-0", check=2).stderr


@pytest.mark.slow
def test_typed_accents_find_what_a_mac_named(mac: Path, build: Build, tmp_path: Path) -> None:
    index = tmp_path / "test.index"
    table = tmp_path / "m.csv"
    table.write_text(f"path,labels\n{CAFE}/{MUELLER},tagged\n", "utf-8")
    assert build(mac / CAFE, "--label-from-folder")["added"] == 1, "a source typed"
    answer = build(mac, "--label-from-folder", "--metadata", table)
    assert answer["failed"] == []
    assert "tagged" in labels(index)[decomposed(MUELLER)], "the name stays as it is on the disk"
    for asked in (f"label={CAFE}", f"path~{CAFE}/*", f"path={CAFE}/{MUELLER}", f"label={decomposed(CAFE)}"):
        found = json.loads(run_cli("search", mac / "plain.png", "--index", index, "--filter", asked, "--json").stdout)
        assert [Path(hit["path"]).name for hit in found["hits"]] == [decomposed(MUELLER)], asked
    run_cli("search", mac / CAFE / MUELLER, "--index", index)
    (tmp_path / "list").write_text(f"{mac}/{CAFE}/{MUELLER}\n", "utf-8")
    assert build("--files-from", tmp_path / "list")["unchanged"] == 1
    assert run_cli("remove", index, mac / CAFE / MUELLER).stdout.startswith("Removed 1 image")
    (mac / decomposed(CAFE) / decomposed(MUELLER)).unlink()
    erased = run_cli("remove", index, mac / CAFE / MUELLER, "--erase").stdout
    assert "1 path of what was removed before" in erased, "also when the file is gone"


def test_composed_names_are_found_by_decomposed_ones(tmp_path: Path, build: Build) -> None:
    photos = tmp_path / CAFE
    photos.mkdir()
    draw_picture("red", "circle", 0).save(photos / MUELLER)
    build(photos)
    assert as_on_disk(tmp_path / decomposed(CAFE) / decomposed(MUELLER)) == photos / MUELLER
    assert as_on_disk(tmp_path / decomposed(CAFE) / "é.png") == photos / "é.png"
    run_cli("remove", tmp_path / "test.index", tmp_path / decomposed(CAFE) / decomposed(MUELLER))


TABLES: dict[str, bytes] = {
    "semicolons": b"path;labels;price\na/0.png;new;12,5\n",
    "tabs": b"path\tlabels\tprice\na/0.png\tnew\t12.5\n",
    "UTF-16 of Excel": "path\tlabels\tprice\r\na/0.png\tnew\t12.5\r\n".encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + "path\tlabels\tprice\r\na/0.png\tnew\t12.5\r\n".encode("utf-16-be"),
    "byte-order mark": "path,labels,price\na/0.png,new,12.5\n".encode("utf-8-sig"),
    "mark and quotes": '"Path";"Labels";"price"\n"a/0.png";"new";"12,5"\n'.encode("utf-8-sig"),
    "sep=": b"sep=;\r\nPath;LABELS;price\r\na/0.png;new;12,5\r\n",
    "another sep=": "sep=|\r\npath|labels|price\r\na/0.png|new|12.5\r\n".encode("utf-8-sig"),
    "backslashes": b"path,labels,price\na\\0.png,new,12.5\n",
    "./ of find": b"path,labels,price\n./a/0.png,new,12.5\n",
    ".\\ of Windows": b"path,labels,price\n.\\a\\0.png,new,12.5\n",
    "absolute": b"path,labels,price\n{photos}/a/0.png,new,12.5\n",
    "spaces and case": b" PATH , Labels ,price\na/0.png,new,12.5\n",
    "empty rows and columns": b"path,labels,price,\na/0.png,new,12.5,\n,,,\n,,,,\n\n",
    "old Mac": b"path,labels,price\ra/0.png,new,12.5\r",
}


@pytest.fixture
def tabled(tmp_path: Path, build: Build) -> Path:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for number in range(2):
        draw_picture("red", "stripes", number, size=96 + number).save(tmp_path / "photos" / "a" / f"{number}.png")
    build(tmp_path / "photos")
    return tmp_path / "photos"


@pytest.mark.slow
def test_tables_are_taken_as_spreadsheets_write_them(tabled: Path, build: Build, tmp_path: Path) -> None:
    for name, data in TABLES.items():
        (tmp_path / "m.csv").write_bytes(data.replace(b"{photos}", os.fsencode(tabled)))
        answer = build(tabled, "--metadata", tmp_path / "m.csv", "--replace-labels")
        assert answer["failed"] == [], name
        with Index.open(tmp_path / "test.index", writable=True) as index, index.writer() as writer:
            records, _ = index.catalog.page(0, 10)
            (record,) = (record for record in records if record.paths[0].endswith("/0.png"))
            assert (record.labels, record.metadata) == (("new",), {"price": 12.5}), name
            with writer.transaction() as transaction:
                transaction.describe(record.id, labels=[], metadata={})


def test_paths_may_begin_in_the_folder_named_or_in_its_root(tabled: Path, build: Build, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,labels\n0.png,short\na/1.png,long\n")
    build(tabled / "a", "--metadata", tmp_path / "m.csv")
    assert labels(tmp_path / "test.index") == {"0.png": ("short",), "1.png": ("long",)}


def test_labels_that_a_file_has_no_more_go_where_that_is_asked_for(tabled: Path, build: Build, tmp_path: Path) -> None:
    index, table = tmp_path / "test.index", tmp_path / "m.csv"

    def label(text: str, *flags: str) -> dict[str, tuple[str, ...]]:
        table.write_text(text)
        build(tabled, "--metadata", table, *flags)
        return labels(index)

    assert label("path,labels\na/0.png,x;y\na/1.png,z\n")["0.png"] == ("x", "y")
    assert label("path,labels\na/0.png,y\n")["0.png"] == ("x", "y"), "what was given elsewhere stays"
    replace = "--replace-labels"
    assert label("path,labels\na/0.png,v\n./a/0.png,w\n", replace) == {"0.png": ("v", "w"), "1.png": ("z",)}
    assert label("path,price\na/0.png,7\n", replace)["0.png"] == ("v", "w"), "a file without labels"
    assert label("path,labels\na/0.png,\n", replace)["0.png"] == ()
    assert label("path,labels\na/0.png,v\n", replace, "--label-from-folder")["0.png"] == ("a", "v")
    assert "--metadata" in run_cli("build", tabled, replace, "--index", index, check=2).stderr


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "header"),
        (b"sep=;", "header"),
        (b"name;labels\nx;y\n", "header"),
        (b"path,labels,Path\na,b,c\n", "two columns `path`"),
        (b"path,price, price\na,1,2\n", "two columns `price`"),
        ("path,labels\na,b\n".encode("utf-16-le"), "UTF-8"),
        (b"path,labels\ncaf\xe9.png,x\n", "not UTF-8"),
        (b"path,labels\na.png,x,y\n", "line 2: more cells"),
        (b"sep=;\npath;labels\na.png;x;y\n", "line 3: more cells"),
        (b"path,labels\n" + b'"' + b"a" * 200_000 + b'",x\n', "line 2"),
        (b"path,labels\n,x\n", "line 2: a `path` or an `id`"),
    ],
)
def test_a_table_that_cannot_be_read_says_where(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "m.csv").write_bytes(data)
    with pytest.raises(MetadataInvalid, match=says):
        list(read_metadata(tmp_path / "m.csv"))


def test_a_line_of_json_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"path": "a"}\n{"path": "b", "labels": ["red"], "labels": ["blue"]}\n')
    with pytest.raises(MetadataInvalid, match=r"line 2: an object has a key twice\. Keep one\."):
        list(read_metadata(tmp_path / "m.jsonl"))


def test_columns_without_a_name_may_be_several(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,price,,\na,1,,\n")
    assert [one.metadata for one in read_metadata(tmp_path / "m.csv")] == [{"price": 1}]


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    for number, data in enumerate("KEY\r\nread:OTHER\r\n".encode(one) for one in ("utf-8-sig", "utf-16", "utf-8")):
        (tmp_path / str(number)).write_bytes(data)
    found: Sequence[Any] = [read_keys([], tmp_path / str(number)) for number in range(3)]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 2


def test_paths_that_are_not_utf8_are_refused_or_listed_never_a_crash(tmp_path: Path, build: Build) -> None:
    strange, plain, index = tmp_path / "ro\udce9t", tmp_path / "photos", tmp_path / "test.index"
    for folder in (strange, plain):
        folder.mkdir()
        draw_picture("red", "circle", len(folder.name)).save(folder / "a.png")
    (plain / "caf\udce9").mkdir()
    draw_picture("blue", "square", 1).save(plain / "caf\udce9" / "b.png")
    answer = build(plain, code=3)
    assert (answer["added"], len(answer["failed"])) == (1, 1)
    for arguments in (
        ("build", strange, "--index", index),
        ("build", strange, "--index", index, "--dry-run"),
        ("build", plain, strange / "a.png", "--index", index),
        ("build", strange, "--index", tmp_path / "new.index", "--dry-run"),
        ("build", plain, "--index", strange / "new.index"),
    ):
        assert "not valid UTF-8" in run_cli(*arguments, check=2).stderr
    assert not (strange / "new.index").exists()
    assert run_cli("remove", index, "caf\udce9.png", check=3).stderr == "not in the index: caf\\udce9.png\n"
    index.rename(strange / "moved.index")
    for command in ("info", "verify", "compact", "rebuild", "spaces"):
        assert "not valid UTF-8" in run_cli(command, strange / "moved.index", check=2).stderr


def test_a_source_whose_name_is_too_long_is_a_mistake_on_the_command_line(tmp_path: Path) -> None:
    assert "File name too long" in run_cli("build", "x" * 5000, "--index", tmp_path / "i", check=2).stderr
