"""Prompts: queries as people type them, such as `red bicycle::2 beach --no people`.

    prompt   a part after another, with `+` or `-` between them; `+` may be left out where it is clear
    part     words, "words in quotes", an image, or `--no` and a part (weight -.5)
    image    a path (a word that ends as an image's name does, or holds a `/`), `file:"any path"`, or `id:3fa9`
    weight   `2:` before a part, or `::2` behind it, which ends it
    style    `--style IMAGE`, as often as wanted, and `--sw 0..1000` (100: as much as the rest)

Reading opens no file: whoever has paths looks for them. The client has a copy of `search/query/prompt.py`, which
`client/generate.py` makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Literal, NoReturn

from search.errors import PromptInvalid

Kind = Literal["words", "path", "id"]
MAX_PROMPT_PARTS = 64
MIN_WEIGHT, MAX_WEIGHT = 1e-3, 1e6
NO_WEIGHT = -0.5
"""Of a part behind `--no`."""
MAX_STYLE, PLAIN_STYLE = 1000.0, 100.0
"""The highest `--sw`, and what it is where none is given."""
_ENDINGS = """
ai apng arw avif bmp cr2 cr3 cur dds dib dng emf eps gif hdr heic heif hif ico j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx
jxl mpo nef orf pbm pcx pgm png pnm ppm ps psd raf raw rw2 svg svgz tga tif tiff webp wmf xcf
"""
IMAGE_ENDINGS = frozenset(_ENDINGS.split())
"""What names of images end in, read here or not: `bird.svg` is a slip, not words."""
_TOKEN = re.compile(r"\s*(\S+)")
_NUMBER = r"(?:\d{1,9}(?:\.\d{0,24})?|\.\d{1,24})"
_BEFORE = re.compile(rf"({_NUMBER}):(?!:)", re.ASCII)
_BEHIND = re.compile(rf"::(-?{_NUMBER})$", re.ASCII)
_QUOTED_END = re.compile(rf"(?:::-?{_NUMBER})?(?=\s|$)", re.ASCII)
_PLAIN_WORD = re.compile(r"[^\W\d_][\w'-]*")
_PLAIN_PATH = re.compile(r"[\w./-]+")


@dataclass(frozen=True, kw_only=True)
class PromptPart:
    """One part: words, the path of an image, or the beginning of an image's id. position: where it stands."""

    kind: Kind
    value: str
    weight: float = 1.0
    position: int = field(default=0, compare=False)

    def __str__(self) -> str:
        weight = "" if abs(self.weight) == 1 else f"{_number(abs(self.weight))}:"
        return f"{'- ' if self.weight < 0 else ''}{weight}{self.named}"

    @property
    def named(self) -> str:
        """It, without its weight."""
        if self.kind == "id":
            return f"id:{self.value}"
        if self.kind == "words":
            words = self.value.split(" ")
            plain = all(_PLAIN_WORD.fullmatch(word) and not _is_path(word) for word in words)
            return self.value if plain else _quoted(self.value)
        plain = bool(_PLAIN_PATH.fullmatch(self.value)) and self.value[0] != "-" and _is_path(self.value)
        return self.value if plain else f"file:{_quoted(self.value)}"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a prompt says: weighted parts, and images whose style is meant, with `style_weight` of the rest's weight.

    Printed, it is a prompt that says the same.
    """

    parts: tuple[PromptPart, ...] = ()
    style: tuple[PromptPart, ...] = ()
    style_weight: float = 1.0

    def __str__(self) -> str:
        said = ""
        for part in self.parts:
            said += f"{' + ' if said and part.weight > 0 else ' ' if said else ''}{part}"
        styles = [f"--style {part.named}" for part in self.style]
        if self.style and self.style_weight != 1:
            styles.append(f"--sw {_number(100 * self.style_weight)}")
        return " ".join([said, *styles] if said else styles)

    @property
    def paths(self) -> tuple[PromptPart, ...]:
        """The parts that are paths, and those of the style, as they stand."""
        found = [part for part in (*self.parts, *self.style) if part.kind == "path"]
        return tuple(sorted(found, key=lambda part: part.position))

    @property
    def only_pushes_away(self) -> bool:
        """Whether it says nothing of what is wanted."""
        return not self.style and all(part.weight < 0 for part in self.parts)

    @property
    def only_words(self) -> str | None:
        """The words of a prompt that has nothing else, as they are."""
        if len(self.parts) != 1 or self.style or (self.parts[0].kind, self.parts[0].weight) != ("words", 1.0):
            return None
        return self.parts[0].value


def read_prompt(text: str) -> Prompt:
    """The meaning of a prompt. Raises PromptInvalid."""
    return _Reader(text).prompt()


def caret(text: str, position: int) -> str:
    """The prompt, and a line below it that points at a position; of a long one only what is around it."""
    start = max(0, position - 60)
    shown = "".join(one if one.isprintable() else " " for one in text[start : position + 20])
    return f"{shown}\n{' ' * (position - start)}^"


@dataclass(frozen=True)
class _Token:
    """A piece of a prompt: an operator, a flag, a word, or what stands in quotes. before, behind: its weights."""

    kind: Literal["+", "-", "flag", "word", "quoted", "path", "id"]
    value: str
    position: int
    before: float | None = None
    behind: float | None = None


class _Reader:
    """Reads one prompt, from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [*self._read_tokens()]
        self._next = 0

    def prompt(self) -> Prompt:
        """All of it."""
        parts: list[PromptPart] = []
        style: list[PromptPart] = []
        share: float | None = None
        sign, operator = 1.0, None
        while (token := self._peek()) is not None:
            if token.kind in ("+", "-"):
                self._next += 1
                if operator is not None:
                    self._fail(token.position, f"`{operator.kind}` and `{token.kind}` stand side by side. Leave one.")
                sign, operator = (1.0 if token.kind == "+" else -1.0), token
                continue
            if token.kind == "flag" and token.value != "no":
                if operator is not None:
                    self._fail(operator.position, f"Nothing follows `{operator.kind}`.")
                if token.value == "style":
                    style.append(self._style())
                elif share is not None:
                    self._fail(token.position, "`--sw` is given twice.")
                else:
                    share = self._share()
                continue
            factor = 1.0
            if token.kind == "flag":
                self._next += 1
                factor = NO_WEIGHT
                after = self._peek()
                if after is None or after.kind in ("+", "-", "flag"):
                    self._fail(token.position, "`--no` needs what is not wanted: --no people.")
            parts.append(self._part(sign * factor))
            sign, operator = 1.0, None
            if len(parts) + len(style) > MAX_PROMPT_PARTS:
                self._fail(parts[-1].position, f"A prompt has at most {MAX_PROMPT_PARTS} parts.")
        if operator is not None:
            self._fail(operator.position, f"Nothing follows `{operator.kind}`.")
        if share is not None and not style:
            self._fail(len(self._text), "`--sw` is of a style: add --style IMAGE.")
        if share == 0:
            style = []
        if not parts and not style:
            self._fail(0, "The prompt says nothing. Say what to look for.")
        return Prompt(
            parts=tuple(parts), style=tuple(style), style_weight=1.0 if share is None or not style else share / 100
        )

    def _peek(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _part(self, factor: float) -> PromptPart:
        """The part that begins with the next token, and ends before the next one."""
        first = self._tokens[self._next]
        self._next += 1
        tokens = [first]
        if first.kind == "word":
            while tokens[-1].behind is None and (token := self._peek()) is not None and token.kind == "word":
                if token.before is not None:
                    break
                tokens.append(token)
                self._next += 1
        last = tokens[-1]
        if first.before is not None and last.behind is not None:
            self._fail(last.position, "This part has two weights: `2:` before it, and `::2` behind it. Leave one.")
        given = first.before if first.before is not None else last.behind
        weight = factor * (1.0 if given is None else given)
        if not MIN_WEIGHT / 2 <= abs(weight) <= MAX_WEIGHT:
            self._fail(first.position, f"A weight lies between {MIN_WEIGHT} and {MAX_WEIGHT:,.0f}.")
        kind: Kind = "path" if first.kind == "path" else "id" if first.kind == "id" else "words"
        value = " ".join(token.value for token in tokens)
        return PromptPart(kind=kind, value=value, weight=weight, position=first.position)

    def _style(self) -> PromptPart:
        flag = self._tokens[self._next]
        self._next += 1
        token = self._peek()
        if token is not None and token.kind == "quoted":
            token = self._tokens[self._next] = replace(token, kind="path")
        if token is None or token.kind not in ("path", "id"):
            self._fail(flag.position, "`--style` needs an image: a path, or id:PREFIX.")
        if token.before is not None or token.behind is not None:
            self._fail(token.position, "The weight of a style is `--sw`, 0 to 1000.")
        return self._part(1.0)

    def _share(self) -> float:
        flag = self._tokens[self._next]
        self._next += 1
        token = self._peek()
        if token is None or token.kind != "word" or not re.fullmatch(_NUMBER, token.value, re.ASCII):
            self._fail(flag.position, "`--sw` needs a number, 0 to 1000.")
        self._next += 1
        share = float(token.value)
        if share > MAX_STYLE or 0 < share < MIN_WEIGHT:
            self._fail(token.position, "`--sw` is 0, or between 0.001 and 1000.")
        return share

    def _read_tokens(self) -> Iterator[_Token]:
        place = 0
        while (match := _TOKEN.match(self._text, place)) is not None:
            start, word = match.start(1), match.group(1)
            place = match.end()
            if word in ("+", "-"):
                yield _Token("+" if word == "+" else "-", word, start)
                continue
            if word.startswith("--") and len(word) > 2:
                if word not in ("--no", "--style", "--sw"):
                    self._fail(start, f"`{word}` is not known here: --no, --style and --sw are. Or put it in quotes.")
                yield _Token("flag", word[2:], start)
                continue
            if word[0] in "+-" and len(word) > 1:  # `-blue` is `- blue`
                yield _Token("+" if word[0] == "+" else "-", word[0], start)
                start += 1
                word = word[1:]
            begun = start
            before = None
            if (weight := _BEFORE.match(word)) is not None:
                before = float(weight.group(1))
                start += weight.end()
                word = word[weight.end() :]
                if not word:  # `2: red`
                    following = _TOKEN.match(self._text, start)
                    if following is None:
                        self._fail(begun, "Nothing follows this weight. Put it in quotes if it is words.")
                    start, word, place = following.start(1), following.group(1), following.end()
                    if word in ("+", "-") or word.startswith("--"):
                        self._fail(begun, "Nothing follows this weight. Put it in quotes if it is words.")
            if word[0] == '"' or word.startswith('file:"'):
                kind = "quoted" if word[0] == '"' else "path"
                opened = start if kind == "quoted" else start + len("file:")
                value, place = self._quoted(opened)
                end = _QUOTED_END.match(self._text, place)
                if end is None:
                    self._fail(place, "After a closing quote comes a space, or a weight such as ::2.")
                behind = float(end.group()[2:]) if end.group() else None
                place = end.end()
                yield _Token("quoted" if kind == "quoted" else "path", value, begun, before, behind)
                continue
            behind = None
            if (weight := _BEHIND.search(word)) is not None:
                behind = float(weight.group(1))
                word = word[: weight.start()]
                if not word:
                    self._fail(start, "A weight stands right behind its part: red bicycle::2.")
            yield self._word(word, begun, start, before, behind)

    def _word(self, word: str, begun: int, start: int, before: float | None, behind: float | None) -> _Token:
        lower = word.lower()
        if "::" in word:
            self._fail(start + word.index("::"), "Behind `::` comes a weight: red bicycle::2. Or put it in quotes.")
        if lower.startswith("id:"):
            if not re.fullmatch(r"[0-9a-f]{4,64}", lower[3:], re.ASCII):
                self._fail(start, "Behind `id:` come 4 to 64 hexadecimal digits. Or put it in quotes.")
            return _Token("id", lower[3:], begun, before, behind)
        if lower.startswith("file:"):
            if len(word) == len("file:"):
                self._fail(start, 'Behind `file:` comes a path: file:"my photo.jpg". Or put it in quotes.')
            return _Token("path", word[len("file:") :], begun, before, behind)
        return _Token("path" if _is_path(word) else "word", word, begun, before, behind)

    def _quoted(self, opened: int) -> tuple[str, int]:
        """What stands in quotes that open here, and where they end. A backslash makes a quote, or itself, literal."""
        found: list[str] = []
        place = opened + 1
        while (one := self._text[place : place + 1]) != "":
            if one == '"':
                if not found:
                    self._fail(opened, "Nothing stands in these quotes.")
                break
            if one == "\\" and self._text[place + 1 : place + 2] in ('"', "\\"):
                place += 1
                one = self._text[place]
            found.append(one)
            place += 1
        else:
            self._fail(opened, 'This quote is not closed. Add a " where it ends.')
        return "".join(found), place + 1

    def _fail(self, position: int, message: str) -> NoReturn:
        raise PromptInvalid(message, position)


def _is_path(word: str) -> bool:
    name, dot, ending = word.rpartition(".")
    return "/" in word or (bool(dot) and bool(name) and ending.lower() in IMAGE_ENDINGS)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _number(value: float) -> str:
    return format(Decimal(repr(value)), "f").removesuffix(".0")
