"""Which file of a group to keep: rules that one can read, in order."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from analysis.duplicates.groups import SURE, Decision, File, Group
from analysis.errors import RuleInvalid
from search.console import plural

DEFAULT_RULES = "resolution,metadata,oldest,bytes"
RESOLUTION = "resolution"
FORMATS = ("gif", "bmp", "jpeg", "webp", "heic", "heif", "avif", "jxl", "png", "tiff")
"""From what keeps least of a picture to what keeps most; a format that is not here comes before them."""


@dataclass(frozen=True)
class Rule:
    """Of two files, the one with the larger `worth` is kept, because it is `why`. pattern: that it looks for."""

    why: str
    worth: Callable[[File], float]
    pattern: str | None = None


def _known_facts(file: File) -> float:
    facts = file.image.facts
    told = sum(one is not None for one in (facts.taken_at, facts.camera, facts.gps))
    return told + len(file.image.labels) + len(file.image.metadata)


RULES = {
    RESOLUTION: Rule("more pixels", lambda file: file.image.facts.width * file.image.facts.height),
    "format": Rule(
        "the better format",
        lambda file: FORMATS.index(file.image.facts.format) if file.image.facts.format in FORMATS else -1,
    ),
    "metadata": Rule("more is known of it", _known_facts),
    "bytes": Rule("the larger file", lambda file: file.location.size),
    "smallest": Rule("the smaller file", lambda file: -file.location.size),
    "oldest": Rule("older", lambda file: -file.location.mtime_ns),
}


def of_photo(rules: Sequence[Rule], shown: Mapping[str, int]) -> list[Rule]:
    """Rules for the files of one photo: what shows more of it comes first, not what has more pixels of a frame, or of
    an enlarged copy. shown: by image id, how much of the photo it shows."""
    more = Rule("more of the photo", lambda file: shown.get(file.image.id, 0))
    return [more if rule is RULES[RESOLUTION] else rule for rule in rules]


def parse_rules(text: str, protect: Sequence[str] = ()) -> list[Rule]:
    """The rules of a list such as `resolution,folder:Originals,oldest`. protect: patterns of files that are kept before
    all others. Raises RuleInvalid."""
    rules = [_matching("protected", pattern) for pattern in protect]
    for word in filter(None, map(str.strip, text.split(","))):
        name, _, pattern = word.partition(":")
        if name == "folder" and pattern:
            rules.append(_matching(f"in {pattern}", pattern))
        elif word in RULES:
            rules.append(RULES[word])
        else:
            raise RuleInvalid(f"There is no rule {word!r}. Rules are: {', '.join(RULES)}, and folder:GLOB.")
    return rules


def _matching(why: str, pattern: str) -> Rule:
    return Rule(why, lambda file: matches(file, pattern), pattern)


def matches(file: File, pattern: str) -> bool:
    """Whether a file lies in a folder, or fits a pattern: of its absolute path, of the path under its root, or of the
    path from the current folder.

    `*` stands for anything, `/` too: `Originals` and `Originals/*` are the folder `Originals`, `*/raw/*` any `raw`.
    Brackets may also mean themselves.
    """
    wanted = unicodedata.normalize("NFC", pattern).rstrip("/")
    names = [unicodedata.normalize("NFC", name) for name in (file.path.as_posix(), file.location.path)]
    here = posixpath.normpath(Path(wanted).absolute().as_posix())
    forms = [form for one in (wanted, here) for same in {one, one.replace("[", "[[]")} for form in (same, f"{same}/*")]
    return any(fnmatchcase(name, form) for name in names for form in forms)


def check_patterns(rules: Iterable[Rule], groups: Iterable[Group]) -> None:
    """Raise RuleInvalid where a pattern fits no file of any group: it may be a slip, and protect nothing."""
    files = [file for group in groups for file in group.files]
    for rule in rules:
        if files and rule.pattern is not None and not any(matches(file, rule.pattern) for file in files):
            raise RuleInvalid(
                f"No duplicate lies in {rule.pattern!r}. Write the folder as an absolute path, as one under the folder "
                f"that was built, or as one from {Path.cwd()}; * stands for anything."
            )


def protected_files(pattern: str, groups: Iterable[Group]) -> str:
    """Which files of groups a pattern protects, in a sentence; empty where there are none."""
    paths = sorted({str(file.path) for group in groups for file in group.files if matches(file, pattern)})
    return f"{pattern} protects {plural(len(paths), 'file')}, such as {paths[0]}" if paths else ""


def decide(groups: Iterable[Group], rules: Sequence[Rule], protect: Sequence[str] = ()) -> list[Decision]:
    """What to keep of each group. protect: patterns of files that stay whatever the rules say.

    Of equal pixels an image is kept with all its files: equal files are a group of their own. Of tiers that are not
    sure nothing goes.
    """
    decisions = []
    for group in groups:
        keep, why = _kept(group, rules)
        safe = tuple(file for file in group.files if any(matches(file, pattern) for pattern in protect))
        goes = tuple(
            file
            for file in group.files
            if group.tier in SURE
            and (file is not keep if group.tier == "bytes" else file.image.id != keep.image.id)
            and file not in safe
        )
        decisions.append(Decision(group=group, keep=keep, why=why, goes=goes, protected=safe))
    return decisions


def _kept(group: Group, rules: Sequence[Rule]) -> tuple[File, str]:
    """The file to keep of a group, and why: of the image that all others were proved against, where there is one."""
    if not group.shown or group.centre is None:
        return choose(group.files, rules)
    keep, why = choose(group.files, of_photo(rules, group.shown))
    if keep.image.id == group.centre:
        return keep, why
    held = [file for file in group.files if file.image.id == group.centre]
    return choose(held, rules)[0], "all others were compared with it"


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
