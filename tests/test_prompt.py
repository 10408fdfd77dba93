"""Promises of prompts: what they mean, where they are wrong, and that they print as they are read."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexer.pictures.formats import FORMATS
from search.errors import PromptInvalid
from search.query.prompt import IMAGE_ENDINGS, Prompt, PromptPart, caret, read_prompt


def words(value: str, weight: float = 1.0) -> PromptPart:
    return PromptPart(kind="words", value=value, weight=weight)


def path(value: str, weight: float = 1.0) -> PromptPart:
    return PromptPart(kind="path", value=value, weight=weight)


def of_id(value: str, weight: float = 1.0) -> PromptPart:
    return PromptPart(kind="id", value=value, weight=weight)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("red bicycle", [words("red bicycle")]),
        ("  red \t bicycle ", [words("red bicycle")]),
        ("2:red bicycle", [words("red bicycle", 2)]),
        ("2: red bicycle", [words("red bicycle", 2)]),
        ("red bicycle::2", [words("red bicycle", 2)]),
        ("red bicycle::2 beach --no people", [words("red bicycle", 2), words("beach"), words("people", -0.5)]),
        ("red::.25 + blue", [words("red", 0.25), words("blue")]),
        ("red::-1.5", [words("red", -1.5)]),
        ("red - blue", [words("red"), words("blue", -1)]),
        ("red -blue +green", [words("red"), words("blue", -1), words("green")]),
        ("red 2:blue sky", [words("red"), words("blue sky", 2)]),
        ("- 3:red + blue", [words("red", -3), words("blue")]),
        ("red - --no blue", [words("red"), words("blue", 0.5)]),
        ("--no 2:people", [words("people", -1)]),
        ('2:photo.jpg + "snow" - id:3FA9', [path("photo.jpg", 2), words("snow"), of_id("3fa9", -1)]),
        ("a/b", [path("a/b")]),
        ("photo.JPG snow", [path("photo.JPG"), words("snow")]),
        ('file:"my photo.jpg"::2 snow', [path("my photo.jpg", 2), words("snow")]),
        ("file:photo", [path("photo")]),
        ('"photo.jpg"', [words("photo.jpg")]),
        ('"2:red - blue --no x"::2', [words("2:red - blue --no x", 2)]),
        (r'"a \"b\" \\ \c"', [words(r'a "b" \ \c')]),
        ("t-shirt 5\" pipe's end", [words("t-shirt 5\" pipe's end")]),
        ("10:30", [words("30", 10)]),
        ("bird.svg", [path("bird.svg")]),
        (".jpg e.g. v1.0", [words(".jpg e.g. v1.0")]),
    ],
)
def test_a_prompt_means_its_parts(text: str, parts: list[PromptPart]) -> None:
    assert read_prompt(text) == Prompt(parts=tuple(parts))


def test_a_style_is_apart_from_the_rest() -> None:
    assert read_prompt("--style ref.jpg --sw 300") == Prompt(style=(path("ref.jpg"),), style_weight=3)
    assert read_prompt('cat --style "my ref" --style id:abcd dog') == Prompt(
        parts=(words("cat"), words("dog")), style=(path("my ref"), of_id("abcd"))
    )
    assert read_prompt("cat --style ref.jpg --sw 0") == Prompt(parts=(words("cat"),))


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("", 0, "says nothing"),
        ("--style a.jpg --sw 0", 0, "says nothing"),
        ("red +", 4, "Nothing follows `\\+`"),
        ("red + - blue", 6, "side by side"),
        ("red - --style a.jpg", 4, "Nothing follows"),
        ('red "blue', 4, "not closed"),
        ('red ""', 4, "Nothing stands"),
        ('"red"blue', 5, "closing quote"),
        ("red --seed 4", 4, "`--seed` is not known"),
        ("red --no", 4, "needs what is not wanted"),
        ("red --no --sw 3", 4, "needs what is not wanted"),
        ("red --style blue", 4, "needs an image"),
        ("--style 2:a.jpg", 8, "`--sw`"),
        ("red --sw 30", 11, "add --style"),
        ("--style a.jpg --sw 1001", 19, "1000"),
        ("--style a.jpg --sw much", 14, "needs a number"),
        ("--style a.jpg --sw 1 --sw 2", 21, "twice"),
        ("2:red::3", 0, "two weights"),
        ("red 0:blue", 4, "weight lies between"),
        ("red 2000000:blue", 4, "weight lies between"),
        ("red 2:", 4, "Nothing follows this weight"),
        ("red ::2", 4, "right behind"),
        ("red::two", 3, "comes a weight"),
        ("red id:xyz", 4, "hexadecimal"),
        ("red id:abc", 4, "4 to 64"),
        ("file:", 0, "comes a path"),
        (" + ".join(["red"] * 65), 6 * 64, "at most 64"),
    ],
)
def test_what_is_wrong_is_pointed_at(text: str, position: int, said: str) -> None:
    with pytest.raises(PromptInvalid, match=said) as raised:
        read_prompt(text)
    assert raised.value.position == position
    assert f"at character {position + 1}" in str(raised.value)


def test_a_line_points_at_the_character() -> None:
    assert caret("red --seed", 4) == "red --seed\n    ^"
    shown, pointer = caret("x" * 300 + "\n" + "y" * 300, 300).split("\n")
    assert shown[pointer.index("^")] == " "
    assert len(shown) == 80


def test_every_image_that_is_read_ends_like_one() -> None:
    assert {end for one in FORMATS for end in one.extensions} <= IMAGE_ENDINGS


PIECES = ["red", "2:", "::2", "::-.5", " + ", " - ", '"', "\\", "--no ", "--style ", "--sw ", "a.jpg", "file:"]
PIECES += ["id:3fa9", " ", "\n", "300", ":", "-", "/", "é", "\x00", "\uff11", "0.001:", "\u2028", "'", "_", "."]


def prints_as_it_is_read(text: str) -> bool:
    refused: PromptInvalid | None = None
    try:
        prompt = read_prompt(text)
    except PromptInvalid as error:
        refused = error
    if refused is not None:
        assert 0 <= refused.position <= len(text)
        assert caret(text, refused.position)
        return False
    assert read_prompt(str(prompt)) == prompt, (text, str(prompt))
    assert str(read_prompt(str(prompt))) == str(prompt)
    return True


@settings(max_examples=1_000, deadline=None)
@given(st.text() | st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@example('"a\u2028b"')
def test_nothing_but_its_own_error_and_the_same_from_its_own_print(text: str) -> None:
    prints_as_it_is_read(text)


def test_many_prompts_of_pieces_print_as_they_are_read() -> None:
    generator = random.Random(0)
    made = ("".join(generator.choices(PIECES, k=generator.randint(1, 9))) for _ in range(10_000))
    assert sum(map(prints_as_it_is_read, made)) > 1_000
