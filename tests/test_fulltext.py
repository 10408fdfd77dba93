"""Promises of a search by words: they are in step with the catalog, and found however they are typed."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import image_id, new_image, run_cli, vectors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.catalog import fulltext
from search.catalog.catalog import Catalog
from search.catalog.words import MAX_ASKED, Word, asked, stored, words
from search.errors import IndexDamaged
from search.filters import parse_filter
from search.index import Index
from search.types import JsonObject, Location
from search.upkeep.roots import forget_root, move_root
from search.upkeep.verify import verify

MakeIndex = Callable[..., Index]
DATA = vectors(30)


def at(path: str, root: str = "/photos") -> Location:
    return Location(root=root, path=path, mtime_ns=1, size=2)


def add(index: Index, number: int, path: str, labels: Iterable[str] = (), metadata: JsonObject | None = None) -> None:
    """Add the numbered image at a path, or another location of it."""
    image = replace(new_image(number, DATA[number]), location=at(path), labels=tuple(labels), metadata=metadata or {})
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.add(image)


def found(index: Index, text: str, limit: int = 20, allowed: Iterable[int] | None = None) -> list[int]:
    """The numbers of the images found by a text."""
    among = None if allowed is None else np.array([*allowed], dtype=np.int64)
    hits = index.catalog.find_words(text, limit, among)
    ids = index.catalog.ids([rowid for rowid, _ in hits])
    numbers = {image_id(number): number for number in range(len(DATA))}
    return [numbers[ids[rowid]] for rowid, _ in hits]


@pytest.fixture
def index(make_index: MakeIndex) -> Index:
    return make_index(DATA[:0], publish=False)


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("a/redBicycle_02.jpg", ("bicycle", "Red Bicycle", "redbicycle", "redBicycle_02.jpg", "02", "bicy")),
        ("b/Grüße aus Straße.png", ("grusse", "GRÜSSE", "strasse", "Straße", "gru\u0308\u00dfe")),
        ("c/creme\u0301 bru\u0302le\u0301e.png", ("crémé", "BRULEE", "brûlée")),
        ("d/Smørrebrød-Łódź.png", ("smorrebrod", "lodz", "SMØRREBRØD")),
        ("e/iPhone.JPEGs.png", ("iphone", "IPHONE", "jpegs", "phone")),
        ("f/日本語の自転車.png", ("自転車", "日本", "転", "日本語の自転車.png")),
        ("g/จักรยานสีแดง.png", ("จักรยาน", "สีแดง")),
        ("h/빨간자전거를.png", ("자전거", "빨간")),
        ("i/हिन्दी साइकिल.png", ("हिन्दी", "साइकिल")),
        ("j/велосипед Ёлка.png", ("ВЕЛОСИПЕД", "елка", "вело")),
        ("k/ﬁne \uff12\uff10\uff12\uff14.png", ("fine", "2024")),
        ("l/İstanbul \u0131ş\u0131k.png", ("istanbul", "ISIK")),
        ("folderName/x/1.png", ("folder", "name", "foldername", "x")),
        ("m/don't l'arbre.png", ("don't", "arbre")),
        ("n/דג שָׁלוֹם كِتَاب.png", ("שלום", "كتاب")),
    ],
)
def test_names_are_found_in_any_case_script_and_accents(index: Index, path: str, texts: tuple[str, ...]) -> None:
    add(index, 1, path)
    add(index, 2, "zzz/qqq.gif")
    for text in texts:
        assert found(index, text) == [1], text


@pytest.mark.parametrize("text", ["転日", "bicyclist", "bi", "", " ", "*", '"', "()", "\0", "\ud800", "❤️", "-_."])
def test_what_is_no_word_of_an_image_finds_nothing(index: Index, text: str) -> None:
    add(index, 1, "redBicycle 日本語の自転車.png")
    assert found(index, text) == []


@pytest.mark.parametrize(
    "text",
    [
        'bicycle"',
        "bicycle AND",
        "bicycle OR zebra",
        "NOT bicycle",
        "NEAR(bicycle zebra, 2)",
        "name: bicycle",
        "-bicycle",
        "^bicycle",
        "bicycle*",
        "{name other}: bicycle",
        "(bicycle",
        "bicycle\0zebra",
        "\udc80bicycle\ud800",
        "'; DROP TABLE words; -- bicycle",
        "bicycle " + "w " * 100_000,
        "bicycle " + "w" * 1_000_000,
        "bicycle " + " ".join(f"word{number}" for number in range(5_000)),
        "bicycle " + "自" * 5_000,
    ],
)
def test_no_text_is_syntax_or_too_long(index: Index, text: str) -> None:
    add(index, 1, "bicycle.png")
    assert found(index, text) == [1]
    assert len(asked(text)) <= MAX_ASKED


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_found_by_itself(text: str) -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.execute(fulltext._TABLE)
        connection.execute("INSERT INTO words (title) VALUES (?)", (stored([text]),))
        terms = asked(text)
        for expressions in ([term.every for term in terms], [term.some for term in terms]) if terms else ():
            for expression in (*expressions, " AND ".join(expressions)):
                assert connection.execute("SELECT count(*) FROM words WHERE words MATCH ?", (expression,)).fetchone()[0]
    connection.close()


def test_words_of_names_that_are_run_together() -> None:
    assert list(words("redBicycle02 HTMLPage")) == [
        Word("redbicycle02", ("red", "bicycle", "02")),
        Word("htmlpage", ("html", "page")),
    ]
    assert list(words("自転車 車")) == [Word("自 転 車", ("自 転", "転 車")), Word("車")]
    assert stored(["redBicycle", "自転車"]) == "red bicycle redbicycle 自 転 車"


def test_neighbours_are_found_run_together_and_words_with_other_ends_after_their_own(index: Index) -> None:
    add(index, 1, "guineafowl.png")
    add(index, 2, "penguins.png", ["penguin house"])
    add(index, 3, "1.png", ["penguins"])
    add(index, 4, "2.png", ["penguin"])
    add(index, 5, "rot/Katze.png")
    assert found(index, "a guinea fowl") == [1]
    assert found(index, "penguin")[0] == 4
    assert set(found(index, "penguins")[:2]) == {2, 3}
    assert found(index, "penguins")[2:] == [4]
    assert found(index, "Katzen") == [5]


def test_images_with_all_words_come_first_and_titles_before_names_before_the_rest(index: Index) -> None:
    add(index, 1, "red/bicycle/a.png")
    add(index, 2, "b/red bicycle.png")
    add(index, 3, "c/1.png", ["red bicycle"])
    add(index, 4, "d/2.png", metadata={"Caption": "A red bicycle"})
    add(index, 5, "e/red.png", ["red"])
    add(index, 6, "f/green.png", metadata={"author": {"name": ["Red Adair", 7]}, "red": True})
    ranked = found(index, "red bicycle")
    assert ranked[:2] == [3, 4]
    assert ranked[2:] == [2, 1, 5, 6]
    assert found(index, "adair") == [6]
    assert found(index, "red bicycle", limit=3) == ranked[:3]
    assert found(index, "red zebra bicycle", limit=2) == ranked[:2]
    scores = [score for _, score in index.catalog.find_words("red", 20)]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0


def test_of_images_found_alike_the_first_comes_first(index: Index) -> None:
    for number in (5, 2, 8):
        add(index, number, f"{'abcdefghij'[number]}.png", ["same"])
    assert found(index, "same") == [5, 2, 8]
    assert found(index, "same", limit=0) == []


def test_a_filter_leaves_out_what_it_does_not_match(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        add(index, number, f"{number}.png", ["same", "odd" if number % 2 else "even"])
    allowed = index.catalog.matching(parse_filter({"label": "odd"}))
    odd = [number for number in range(30) if number % 2]
    assert sorted(found(index, "same", 30, allowed)) == odd
    assert found(index, "same", 3, allowed[-1:]) == [29]
    assert found(index, "same", 3, []) == []
    monkeypatch.setattr(fulltext, "MAX_RANKED", 4)
    assert sorted(found(index, "same", 30, allowed)) == odd, "however many are ranked at once"
    assert len(found(index, "same", 30)) == 30
    assert set(found(index, "same nothing", 4, allowed)) <= set(odd)


def test_rare_words_are_found_beside_common_ones(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fulltext, "MAX_RANKED", 4)
    for number in range(30):
        add(index, number, f"{number}.png", ["same", *(["rare"] if number == 3 else [])])
    assert found(index, "the same rare zebra", limit=1) == [3]


def test_images_without_a_file_are_not_found(index: Index) -> None:
    add(index, 1, "a.png", ["same"])
    add(index, 2, "b.png", ["same"])
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.mark_missing("/photos", ["a.png"], missing=True)
    assert found(index, "same") == [2]
    assert found(index, "same", limit=1) == [2]
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.mark_missing("/photos", ["a.png"], missing=False)
    assert found(index, "same") == [1, 2]


def test_names_of_uploads_are_no_words(index: Index) -> None:
    name = image_id(1)
    add(index, 1, f"{name[:2]}/{name}.png", ["uploaded"])
    assert found(index, name) == []
    assert found(index, name[:2]) == []
    assert found(index, "uploaded") == [1]


def test_an_image_in_thousands_of_folders_has_the_words_of_the_first(index: Index) -> None:
    add(index, 1, "first.png")
    with index.writer() as writer, writer.transaction() as transaction:
        for number in range(fulltext.MAX_PATHS + 5):
            transaction.locate(image_id(1), at(f"x/{number + 10_000}.png"))
    assert found(index, "10998") == [1]
    assert found(index, "11003") == []


# In step with every change


def model(index: Index) -> dict[int, tuple[str, str, str]]:
    """What the table of words must hold, by rowid, from the other tables alone."""
    with index.catalog.reading() as connection:
        rows = connection.exec_driver_sql("SELECT rowid, labels, metadata FROM images").all()
        places = connection.exec_driver_sql("SELECT image, path FROM locations ORDER BY location").all()
    return {
        rowid: fulltext.document(
            json.loads(labels), json.loads(metadata), [path for image, path in places if image == rowid]
        )
        for rowid, labels, metadata in rows
    }


def check_in_step(index: Index) -> None:
    with index.catalog.reading() as connection:
        held = connection.exec_driver_sql("SELECT rowid, title, name, other FROM words").all()
        assert {rowid: tuple(texts) for rowid, *texts in held} == model(index)
        assert connection.exec_driver_sql("SELECT count(*) FROM words_due").scalar() == 0
    copy = sqlite3.connect(index.catalog.path)
    copy.execute("INSERT INTO words (words) VALUES ('integrity-check')")  # raises where they differ
    copy.rollback()
    copy.close()


NUMBER, PATH = st.integers(0, 7), st.sampled_from(["a/one.png", "a/b/two.png", "c/three.png", "four.png", "c/5.png"])
ROOT = st.sampled_from(["/photos", "/photos/a", "/other"])
TEXT = st.lists(st.sampled_from(["red", "Blue", "2024/Africa", "自転車", "é"]), max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), NUMBER, PATH, ROOT, TEXT),
        st.tuples(st.just("describe"), NUMBER, TEXT, TEXT),
        st.tuples(st.just("annotate"), NUMBER, TEXT, TEXT),
        st.tuples(st.just("move"), PATH, PATH, ROOT, ROOT),
        st.tuples(st.just("missing"), PATH, ROOT, st.booleans()),
        st.tuples(st.just("forget"), PATH, ROOT),
        st.tuples(st.just("forget_root"), ROOT, st.sampled_from(["", "a/", "c/"])),
        st.tuples(st.just("change_root"), ROOT, ROOT, st.sampled_from(["", "a/"])),
        st.tuples(st.just("remove"), NUMBER, st.booleans()),
        st.tuples(st.just("unlocated")),
        st.tuples(st.just("barred"), PATH, ROOT),
        st.tuples(st.just("fails")),
        st.tuples(st.just("rewrite")),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.lists(st.booleans(), min_size=25, max_size=25))
def test_words_are_in_step_after_any_changes(
    make_index: MakeIndex, tmp_path: Path, steps: list[tuple[object, ...]], ends: list[bool]
) -> None:
    shutil.rmtree(tmp_path / "test.index", ignore_errors=True)
    index = make_index(DATA[:0], publish=False)
    at_once: list[tuple[object, ...]] = []
    for step, end in zip(steps, ends, strict=False):
        at_once.append(step)
        if end:  # several changes in one transaction
            change(index, at_once)
            check_in_step(index)
            at_once = []
    change(index, at_once)
    check_in_step(index)
    index.close()


def change(index: Index, steps: list[tuple[object, ...]]) -> None:
    class Undone(Exception):
        pass

    try:
        with index.writer() as writer, writer.transaction() as transaction:
            for name, *given_ in steps:
                do(SimpleNamespace(transaction=transaction, fails=Undone), str(name), given_)
    except Undone:
        pass


def do(here: SimpleNamespace, name: str, given_: list[object]) -> None:
    transaction = here.transaction
    match name, given_:
        case "add", [int(number), str(path), str(root), list(texts)]:
            image = replace(new_image(number, DATA[number]), location=at(path, root), labels=tuple(texts))
            transaction.add(image)
        case "describe", [int(number), list(labels), list(texts)] if transaction.rowid(image_id(number)):
            transaction.describe(image_id(number), labels=labels, metadata={"title": texts, "n": len(texts)})
        case "annotate", [int(number), list(labels), list(without)] if transaction.rowid(image_id(number)):
            transaction.annotate(image_id(number), labels=labels, metadata={"more": without}, without=without)
        case "move", [str(old), str(new), str(root), str(to)] if transaction.known(root, old):
            transaction.move(at(old, root), at(new, to))
        case "missing", [str(path), str(root), bool(missing)]:
            transaction.mark_missing(root, [path], missing=missing)
        case "forget", [str(path), str(root)]:
            transaction.forget_path(at(path, root))
        case "forget_root", [str(root), str(prefix)]:
            transaction.forget_root(root, prefix)
        case "change_root", [str(old), str(new), str(prefix)]:
            transaction.change_root(old, new, prefix)
        case "remove", [int(number), bool(erase)]:
            transaction.remove([image_id(number)], erase=erase)
        case "unlocated", []:
            transaction.remove_unlocated()
        case "barred", [str(path), str(root)]:
            transaction.locate_removed(at(path, root))
        case "rewrite", []:
            transaction.rewrite_words()
        case "fails", []:
            raise here.fails


def test_roots_that_move_or_are_forgotten_take_their_words_along(index: Index, tmp_path: Path) -> None:
    (tmp_path / "new" / "sub").mkdir(parents=True)
    for number, root in ((1, str(tmp_path / "old")), (2, str(tmp_path / "new"))):
        (tmp_path / "new" / "sub" / f"pic{number}.png").touch()
        with index.writer() as writer, writer.transaction() as transaction:
            image = replace(new_image(number, DATA[number]), location=at(f"pic{number}.png", root))
            transaction.add(image)
    with index.writer() as writer:
        move_root(writer, tmp_path / "old", tmp_path / "new" / "sub")
    assert found(index, "sub") == [1]
    check_in_step(index)
    with index.writer() as writer:
        forget_root(writer, tmp_path / "new" / "sub")
    assert found(index, "pic1") == [2], "by a part of it"
    check_in_step(index)


def test_what_another_program_changed_is_found_after_the_next_change(index: Index) -> None:
    add(index, 1, "a.png", ["before"])
    other = sqlite3.connect(index.catalog.path)
    other.execute("UPDATE images SET labels = '[\"meanwhile\"]'")
    other.commit()
    assert any("words" in finding.problem for finding in verify(index).findings)
    add(index, 2, "b.png")
    other.close()
    assert found(index, "meanwhile") == [1]
    assert found(index, "before") == []


# Kept, erased, migrated and mended


def test_erased_words_leave_no_trace(make_index: MakeIndex) -> None:
    index = make_index(DATA, name="erased.index")
    secrets = ("zyxlabel", "zyxvalue", "zyxfolder", "zyxname")
    add(index, 7, "zyxfolder/zyxname.png", ["zyxlabel"], {"note": "zyxvalue"})
    for secret in secrets:
        assert found(index, secret) == [7]

    def traces() -> set[str]:
        content = b"".join(path.read_bytes() for path in index.path.rglob("*") if path.is_file())
        return {secret for secret in secrets if secret.encode() in content or secret[1:].encode() in content}

    index.close()
    assert traces() == {*secrets}
    run_cli("remove", index.path, "--erase", image_id(7))
    assert traces() == set()
    with Index.open(index.path) as opened:
        assert verify(opened).findings == []


def test_a_catalog_of_version_5_finds_words_after_its_migration(tmp_path: Path) -> None:
    shutil.unpack_archive(Path(__file__).parent / "formats" / "schema-5.zip", tmp_path)
    with Index.open(tmp_path / "i.index") as index:
        assert len(index.catalog.find_words("strange", 1_000)) > 100
        assert len(index.catalog.find_words("t2 image 42 png", 1)) == 1
        check_in_step(index)


DAMAGES = {
    "another text": "UPDATE words SET title = 'else' WHERE rowid = 3",
    "a row too few": "DELETE FROM words WHERE rowid = 3",
    "a row too many": "INSERT INTO words (rowid, title) VALUES (1000, 'else')",
    "a text that is not looked up": "UPDATE words_content SET c0 = 'else' WHERE id = 3",
    "no segments": "DELETE FROM words_data WHERE id > 10",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_words_that_are_out_of_step_are_noticed_and_mended(make_index: MakeIndex, damage: str) -> None:
    index = make_index(DATA)
    index.close()
    connection = sqlite3.connect(index.path / "catalog.sqlite")
    connection.execute(damage)
    connection.commit()
    connection.close()
    (index.path / "catalog.sqlite.sums").unlink()  # another program changed it
    with Index.open(index.path, writable=True) as opened, opened.writer():
        opened.catalog.checkpoint(wait=1)
    with Index.open(index.path) as opened:
        findings = verify(opened).findings
    assert [finding for finding in findings if "words" in finding.problem and "rebuild" in finding.advice]
    run_cli("rebuild", index.path)
    with Index.open(index.path) as opened:
        assert verify(opened).findings == []
        assert len(opened.catalog.find_words("strange", 100)) == 15
        check_in_step(opened)


def test_a_search_in_damaged_words_is_refused(index: Index) -> None:
    add(index, 1, "a.png", ["same"])
    connection = sqlite3.connect(index.catalog.path)
    connection.execute("DELETE FROM words_data WHERE id > 10")
    connection.commit()
    connection.close()
    with pytest.raises(IndexDamaged, match="lookalike verify"):
        index.catalog.find_words("same", 1)


def test_a_copy_of_an_index_finds_the_same_words(index: Index, tmp_path: Path) -> None:
    add(index, 1, "a.png", ["same"])
    index.catalog.copy(tmp_path / "copy.sqlite")
    copy = Catalog.open(tmp_path / "copy.sqlite")
    assert copy.find_words("same", 1) == index.catalog.find_words("same", 1)
    copy.close()
