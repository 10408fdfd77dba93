"""Which file of a group to keep: rules that one can read, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from analysis.duplicates.groups import File
from analysis.errors import RuleInvalid

DEFAULT_RULES = "resolution,format,metadata,bytes,oldest"
FORMATS = ("gif", "bmp", "jpeg", "webp", "heif", "avif", "jxl", "png", "tiff")
"""From what keeps least of a picture to what keeps most; a format that is not here comes before them."""


@dataclass(frozen=True)
class Rule:
    """Of two files, the one with the larger `worth` is kept, because it is `why`."""

    why: str
    worth: Callable[[File], float]


def _known_facts(file: File) -> float:
    facts = file.image.facts
    told = sum(one is not None for one in (facts.taken_at, facts.camera, facts.gps))
    return told + len(file.image.labels) + len(file.image.metadata)


RULES = {
    "resolution": Rule("more pixels", lambda file: file.image.facts.width * file.image.facts.height),
    "format": Rule(
        "the better format",
        lambda file: FORMATS.index(file.image.facts.format) if file.image.facts.format in FORMATS else -1,
    ),
    "metadata": Rule("more is known of it", _known_facts),
    "bytes": Rule("the larger file", lambda file: file.location.size),
    "oldest": Rule("older", lambda file: -file.location.mtime_ns),
}


def parse_rules(text: str) -> list[Rule]:
    """The rules of a list such as `resolution,folder:Originals,oldest`. Raises RuleInvalid."""
    rules = []
    for word in filter(None, map(str.strip, text.split(","))):
        name, _, pattern = word.partition(":")
        if name == "folder" and pattern:
            rules.append(Rule(f"in {pattern}", lambda file, pattern=pattern: matches(file, pattern)))  # type: ignore[misc]
        elif word in RULES:
            rules.append(RULES[word])
        else:
            raise RuleInvalid(f"There is no rule {word!r}. Rules are: {', '.join(RULES)}, and folder:GLOB.")
    return rules


def matches(file: File, pattern: str) -> bool:
    """Whether a file lies in a folder, or fits a pattern: of its absolute path, or of the path under its root.

    `*` stands for anything, `/` too: `Originals` and `Originals/*` are the folder `Originals`, `*/raw/*` any `raw`.
    """
    names = (file.path.as_posix(), file.location.path)
    pattern = pattern.rstrip("/")
    return any(fnmatchcase(name, form) for name in names for form in (pattern, f"{pattern}/*"))


def choose(files: Sequence[File], rules: Sequence[Rule]) -> tuple[File, str]:
    """The file to keep, and why: by the last rule that told it from others that were left.

    Of those that no rule tells apart, the first by the length of its path, then by the path: `a.jpg` before
    `a (1).jpg`.
    """
    left = sorted(files, key=lambda file: (len(str(file.path)), str(file.path)))
    told = "the first by name"
    for rule in rules:
        worths = [rule.worth(file) for file in left]
        best = max(worths)
        if min(worths) < best:
            left, told = [file for file, worth in zip(left, worths, strict=True) if worth == best], rule.why
        if len(left) == 1:
            break
    return left[0], told
