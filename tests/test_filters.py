"""Promises of filters: exactly the images that match, at any selectivity, and a clear refusal of nonsense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import image_id, recipe, vectors

from search.errors import FilterInvalid
from search.filters import MAX_DEPTH, Compare, Condition, Not, OneOf, Or, parse_filter, parse_short
from search.index import Index
from search.types import Encoding, ImageFacts, Location, NewImage, Query, QueryPart, Space

MakeIndex = Callable[..., Index]
COUNT = 60


def number_of(filter_: dict[str, Any], index: Index) -> set[int]:
    hits = index.search(Query(parts=[QueryPart(vector=vectors(1, seed=5)[0])], k=COUNT, filter=parse_filter(filter_)))
    return {hit.width for hit in hits}


CASES: list[tuple[dict[str, Any], Callable[[int], bool]]] = [
    ({}, lambda n: True),
    ({"label": "even"}, lambda n: n % 2 == 0),
    ({"label": {"in": ["strange", "nothing"]}}, lambda n: n % 2 == 1),
    ({"not": {"label": "odd"}}, lambda n: n % 2 == 0),
    ({"width": 7}, lambda n: n == 7),
    ({"width": {"gte": 10, "lt": 20}}, lambda n: 10 <= n < 20),
    ({"width": {"gt": 50}, "label": "odd"}, lambda n: n > 50 and n % 2 == 1),
    ({"format": "jpeg"}, lambda n: n % 3 == 0),
    ({"path": {"glob": "3/*"}}, lambda n: n % 10 == 3),
    ({"metadata.number": {"in": [1, 2, 3]}}, lambda n: n in (1, 2, 3)),
    ({"metadata.number": {"lte": 4}}, lambda n: n <= 4),
    ({"metadata.tags": "t2"}, lambda n: n % 4 == 2),
    ({"metadata.tags": {"exists": True}}, lambda n: True),
    ({"metadata.nothing": {"exists": False}}, lambda n: True),
    ({"metadata.nothing": "x"}, lambda n: False),
    ({"metadata.name": {"gt": 10}}, lambda n: False),
    ({"metadata.name": {"glob": "image 1*"}}, lambda n: str(n).startswith("1")),
    ({"taken_at": {"gte": "2000"}}, lambda n: False),
    ({"not": {"taken_at": {"gte": "2000"}}}, lambda n: True),
    ({"taken_at": {"exists": False}}, lambda n: True),
    ({"or": [{"width": 1}, {"and": [{"label": "even"}, {"width": {"lt": 5}}]}]}, lambda n: n in (0, 1, 2, 4)),
    ({"metadata.thing": "n"}, lambda n: False),
    ({"metadata.thing": {"exists": True}}, lambda n: True),
    ({"metadata.lists": {"gte": 0}}, lambda n: False),
    ({"metadata.even": True}, lambda n: n % 2 == 0),
    ({"metadata.even": False}, lambda n: n % 2 == 1),
    ({"or": []}, lambda n: False),
    ({"and": []}, lambda n: True),
]


@pytest.mark.parametrize(("filter_", "matches"), CASES, ids=[str(case[0]) for case in CASES])
@pytest.mark.parametrize("publish", [True, False], ids=["generation", "delta"])
def test_a_filter_selects_exactly_what_it_says(
    make_index: MakeIndex, filter_: dict[str, Any], matches: Callable[[int], bool], publish: bool
) -> None:
    index = make_index(vectors(COUNT), publish=publish)
    assert number_of(filter_, index) == {number for number in range(COUNT) if matches(number)}


VALUES: list[Any] = [1, 1.0, True, "1", 0, False, "true", None, [], {}, [None], [True, 2], {"y": 1}, "absent", [[1]]]
"""`x` in the metadata of the numbered images; "absent" is not there at all."""


@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        (1, {0, 1}),
        (True, {2, 11}),
        (False, {5}),
        ("1", {3}),
        ("true", {6}),
        ({"in": [True, 0]}, {2, 4, 11}),
        ({"in": [False, 1, "1"]}, {0, 1, 3, 5}),
        ({"in": [1, 2]}, {0, 1, 11}),
        ({"in": []}, set()),
        ({"gt": 0}, {0, 1, 11}),
        ({"lte": 1}, {0, 1, 4}),
        ({"gte": "1"}, {3, 6}),
        ({"glob": "*"}, {0, 1, 3, 4, 6, 11}),
        ({"in": [True, 1], "gte": 1}, {0, 1}),
        ({"exists": True}, {0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 14}),
        ({"exists": False}, {7, 13}),
        ({"exists": True, "in": [True]}, {2, 11}),
    ],
    ids=str,
)
def test_a_value_is_compared_with_values_of_its_own_json_type(
    make_index: MakeIndex, condition: object, matches: set[int]
) -> None:
    index = make_index(vectors(len(VALUES)))
    with index.writer() as writer:
        for number, value in enumerate(VALUES):
            writer.describe(image_id(number), metadata={} if value == "absent" else {"x": value})
    filter_ = {"metadata.x": condition}
    assert number_of(filter_, index) == matches
    assert number_of({"not": filter_}, index) == set(range(len(VALUES))) - matches


def test_k_hits_come_back_whenever_k_images_match(make_index: MakeIndex) -> None:
    index = make_index(vectors(COUNT))
    for low in (0, 30, 50, 59):
        wide = parse_filter({"width": {"gte": low}})
        query = Query(parts=[QueryPart(vector=vectors(1, seed=9)[0])], k=10, filter=wide)
        assert len(index.search(query)) == min(10, COUNT - low)


@pytest.mark.parametrize(
    "filter_",
    [
        [],
        "label",
        {"colour": "red"},
        {"label": {"like": "x"}},
        {"label": {}},
        {"label": None},
        {"label": True},
        {"label": 7},
        {"path": {"in": ["a", 1]}},
        {"taken_at": {"gte": 2024}},
        {"taken_at": {"gte": "yesterday"}},
        {"taken_at": {"gte": "31.12.2023"}},
        {"taken_at": {"in": ["2024/05"]}},
        {"taken_at": "2023-13"},
        {"taken_at": "2023-1"},
        {"taken_at": {"gte": "2023-02-31"}},
        {"taken_at": {"lt": "2023-02-29T10:00"}},
        {"taken_at": ""},
        {"width": True},
        {"height": {"lt": False}},
        {"metadata.even": {"gt": False}},
        {7: "x"},
        {"label": {7: "x"}},
        {"metadata.a\\b": 1},
        {"metadata.a\nb": 1},
        {"or": [{}] * 300},
        {"label": ["a"]},
        {"width": {"gte": float("nan")}},
        {"width": 2**70},
        {"width": {"gte": "abc"}},
        {"height": {"in": [100, "x"]}},
        {"label": "\ud800"},
        {"label": "a\0b"},
        {"and": {"label": "x"}},
        {"not": []},
        {"metadata.": 1},
        {'metadata.a"b': 1},
        {"label": {"exists": "yes"}},
        {"label": {"exists": False, "glob": "*"}},
        {"label": {"in": "abc"}},
        {"label": {"in": ["x"] * 10_001}},
        {"or": [{"label": {"in": ["x"] * 100}}] * 101},
        {"or": [{"label": "x"}] * 201},
    ],
)
def test_nonsense_is_refused_with_a_sentence(filter_: Any) -> None:
    with pytest.raises(FilterInvalid) as caught:
        parse_filter(filter_)
    assert str(caught.value).endswith(".")
    str(caught.value).encode("ascii", "strict") if isinstance(filter_, dict) else None


def test_the_largest_filter_allowed_is_answered(make_index: MakeIndex) -> None:
    index = make_index(vectors(COUNT))
    many = {"metadata.number": {"in": list(range(10, 10_000))}}
    assert number_of(many, index) == set(range(10, COUNT))
    nested: dict[str, Any] = {"or": [{"width": number} for number in range(180)]}
    for _ in range(MAX_DEPTH - 2):
        nested = {"and": [nested]}
    assert number_of(nested, index) == set(range(COUNT))


LEAVES: list[dict[str, Any]] = [
    {"width": {"gte": 0, "lt": 2000}},
    {"label": {"in": ["even", "odd", "x"]}},
    {"path": {"glob": "*", "in": ["a", "b"]}},
    {"taken_at": {"exists": False}},
    {"metadata.number": {"gte": 0, "gt": -1, "lte": 5000, "lt": 6000, "glob": "*"}},
    {"not": {"metadata.number": {"gte": 0, "lt": 1}}},
    {
        "not": {
            "metadata.number": {"in": [True, False, 1, 2.5, "x"], "gte": 0, "gt": -1, "lte": 5, "lt": 6, "glob": "*"}
        }
    },
    {"not": {"metadata.tags": {"exists": True}}},
]


@pytest.mark.parametrize("leaf", LEAVES, ids=[str(leaf) for leaf in LEAVES])
@pytest.mark.parametrize("group", ["or", "and", "not"])
def test_the_deepest_filter_allowed_is_answered(make_index: MakeIndex, leaf: dict[str, Any], group: str) -> None:
    index = make_index(vectors(5))
    nested = leaf
    for _ in range(MAX_DEPTH - 1):
        nested = {"not": nested, **leaf} if group == "not" else {group: [leaf, nested, leaf]}
    number_of(nested, index)


def test_deep_nesting_is_refused_not_recursed() -> None:
    filter_: dict[str, Any] = {"label": "x"}
    for _ in range(MAX_DEPTH + 1):
        filter_ = {"not": filter_}
    with pytest.raises(FilterInvalid, match="nested"):
        parse_filter(filter_)


def test_a_value_is_data_never_sql(make_index: MakeIndex) -> None:
    index = make_index(vectors(5))
    assert number_of({"label": "x' OR 1=1 --"}, index) == set()
    assert number_of({"metadata.a') OR 1=1 --": 1}, index) == set()


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("label=even", lambda n: n % 2 == 0),
        ("label!=even", lambda n: n % 2 == 1),
        ("width>=10,width<20", lambda n: 10 <= n < 20),
        ("path~3/*", lambda n: n % 10 == 3),
        ("metadata.number=12", lambda n: n == 12),
        ('metadata.name="image 4"', lambda n: n == 4),
        ("metadata.name=image 4, label=even", lambda n: n == 4),
        ('path~"3/*"', lambda n: n % 10 == 3),
        ('path~"3, 4/*"', lambda n: False),
        ("metadata.even=true", lambda n: n % 2 == 0),
        ("metadata.even!=true", lambda n: n % 2 == 1),
        ("metadata.number>=5.8e1", lambda n: n >= 58),
        ('{"width": {"lt": 2}}', lambda n: n < 2),
    ],
)
def test_the_short_form_means_the_same(make_index: MakeIndex, text: str, matches: Callable[[int], bool]) -> None:
    index = make_index(vectors(COUNT))
    assert number_of(parse_short(text), index) == {number for number in range(COUNT) if matches(number)}


@pytest.mark.parametrize(
    "text",
    ["", "label", "=x", "{", ",,", "[1]", 'label=cat"', "label==cat", "width=>5", "width=true", '{"and":[' * 9999],
)
def test_a_short_form_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(FilterInvalid):
        parse_filter(parse_short(text))


def test_a_filter_asked_again_sees_what_has_changed_meanwhile(make_index: MakeIndex) -> None:
    index = make_index(vectors(50))
    for count in range(3):
        found = index.search(
            Query(parts=[QueryPart(vector=vectors(1)[0])], k=50, filter=parse_filter({"label": "new"}))
        )
        assert len(found) == count
        with index.writer() as writer:
            writer.describe(image_id(count), labels=["new"])


PEOPLE: list[tuple[dict[str, Any], set[int]]] = [
    ({"label": "africa"}, {0, 4}),
    ({"label": "2024/Africa"}, {0, 4}),
    ({"label": "AFRICA"}, {0, 4}),
    ({"label": "caf\u00e9"}, {3}),  # typed composed; the label is decomposed
    ({"label": {"glob": "2024/A*"}}, {0, 4}),
    ({"not": {"label": "africa"}}, {1, 2, 3, 5}),
    ({"path": {"glob": "[2023] trip/*"}}, {1}),
    ({"path": {"glob": "[0-9]*.png"}}, {5}),
    ({"path": {"glob": "*holiday*"}}, {0, 1}),
    ({"path": {"glob": "/nas/holiday/*"}}, {0, 1}),
    ({"path": "/nas/holiday/2024/africa/0.jpg"}, {0}),
    ({"path": {"glob": "caf\u00e9/*"}}, {3}),
    ({"path": "caf\u00e9/3.png"}, {3}),
    ({"root": "/nas/holiday"}, {0, 1}),
    ({"root": "/nas/holiday/"}, {0, 1}),
    ({"root": {"glob": "*/work"}}, {2, 3, 4, 5}),
    ({"not": {"root": "/nas/holiday"}}, {2, 3, 4, 5}),
    ({"format": "jpg"}, {0, 4}),
    ({"format": "JPEG"}, {0, 4}),
    ({"format": {"in": ["tif", "JPG"]}}, {0, 2, 4}),
    ({"camera": "nikon d850"}, {0, 2}),
    ({"camera": {"glob": "*d850*"}}, {0, 2}),
    ({"camera": {"exists": False}}, {1, 3, 4, 5}),
    ({"bytes": {"gt": 1000}}, {1, 2, 3, 4, 5}),
    ({"gps": {"exists": True}}, {1}),
    ({"latitude": {"gte": 50, "lt": 60}, "longitude": {"lt": 0}}, {1}),
    ({"taken_at": "2024"}, {0, 2}),
    ({"taken_at": "2024-07"}, {0}),
    ({"taken_at": {"lte": "2024"}}, {0, 1, 2}),
    ({"taken_at": {"gt": "2023"}}, {0, 2}),
    ({"taken_at": {"gt": "2024-02-29"}}, {0, 2}),
    ({"taken_at": {"lt": "2024-07-01T11"}}, {0, 1}),
    ({"taken_at": {"gte": "2024", "lt": "2025"}}, {0, 2}),
]
"""Filters in the form that people type, and the images of `library` that they mean."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Index:
    index = Index.create(
        tmp_path_factory.mktemp("library") / "i.index",
        [Space(name="layer2", recipe=recipe(dim=8), encoding=Encoding())],
    )
    facts: list[dict[str, Any]] = [
        {"format": "jpeg", "camera": "NIKON D850", "taken_at": "2024-07-01T10:00:00"},
        {"format": "png", "gps": (51.5, -0.1), "taken_at": "2023-12-31T23:59:59"},
        {"format": "tiff", "camera": "NIKON D850", "taken_at": "2024-12-31T23:59:59"},
        {"format": "png"},
        {"format": "jpeg"},
        {"format": "png"},
    ]
    places = [
        ("/nas/holiday", "2024/africa/0.jpg"),
        ("/nas/holiday", "[2023] trip/1.png"),
        ("/laptop/work", "2024/2.tif"),
        ("/laptop/work", "cafe\u0301/3.png"),
        ("/laptop/work", "Africa/4.jpg"),
        ("/laptop/work", "5.png"),
    ]
    labels: list[tuple[str, ...]] = [("2024/africa",), (), ("2024",), ("cafe\u0301",), ("2024/Africa",), ()]
    with index.writer() as writer, writer.transaction() as transaction:
        for number, (root, path) in enumerate(places):
            transaction.add(
                NewImage(
                    id=image_id(number),
                    facts=ImageFacts(width=number, height=1, bytes=1000 + number, **facts[number]),
                    location=Location(root=root, path=path, mtime_ns=1, size=1),
                    vectors={"layer2": vectors(6, dim=8)[number]},
                    labels=labels[number],
                )
            )
    return index


@pytest.mark.parametrize(("filter_", "wanted"), PEOPLE, ids=[str(case[0]) for case in PEOPLE])
def test_filters_take_values_in_the_form_that_people_type(
    library: Index, filter_: dict[str, Any], wanted: set[int]
) -> None:
    assert {int(one) for one in library.catalog.matching(parse_filter(filter_)) - 1} == wanted


def test_a_filter_is_parsed_once_to_a_tree_that_can_be_compared_and_hashed() -> None:
    tree = parse_filter({"or": [{"label": "cat"}, {"not": {"width": {"gte": 10, "lt": 20}}}]})
    within = Condition("width", (Compare("gte", 10), Compare("lt", 20)))
    assert tree == Or((Condition("label", (OneOf(("cat",)),)), Not(within)))
    assert len({tree, parse_filter({"or": [{"label": "cat"}, {"not": {"width": {"gte": 10, "lt": 20}}}]})}) == 1


def test_a_place_is_compared_by_its_numbers() -> None:
    with pytest.raises(FilterInvalid, match="latitude and longitude"):
        parse_filter({"gps": {"gte": 1}})


def test_a_key_that_is_twice_in_json_is_refused() -> None:
    for text in ('{"label": "a", "label": "b"}', '{"width": {"gte": 1, "gte": 9}}', '{"or": [{"a": 1, "a": 1}]}'):
        with pytest.raises(FilterInvalid, match="an object has a key twice"):
            parse_short(text)
