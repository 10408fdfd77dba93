"""kill -9 while duplicates go and come back: no content is lost, and every step is done or not.

Files with copies lie in folders that an index knows. A process lets the copies go: moved, copied to another disk,
linked, or deleted. It is killed before a random call that changes a file, or at a random moment; the next one goes on,
or takes it back, and is killed too, until one ends. Others meet an error of the system, or a file of somebody else that
takes a name just then. After each, every content is on the disk in full, and nothing lies under a picture's name but
what was there.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from analysis.duplicates import apply as applying
from analysis.duplicates import files
from analysis.duplicates.find import find
from analysis.duplicates.keep import decide, parse_rules
from analysis.duplicates.plan import Action, Request, plan
from analysis.duplicates.runs import Run, continued, named
from analysis.errors import RunInvalid
from search.index import Index
from search.journal import FOLDER
from search.types import Location
from torture import faults
from torture.world import Figures, create, image, in_child

KINDS: dict[str, Action] = {
    "move": "move",
    "move to another disk": "move",
    "move without links": "move",
    "hardlink": "hardlink",
    "reflink": "reflink",
    "delete": "delete",
}
"""Kinds of runs, and what they ask for."""
CONTENTS, COPIES = 8, 3
"""Different files, and how many copies each has at most."""
CALLS, SLOWEST = 60, 0.2
"""Of a process that is killed at a call: up to which one; of others: after how many seconds at most."""
MOST_KILLS = 8
"""Kills of one run, and of what takes it back; then it may end."""
RULES = "oldest"
PLACES = ("photos", "trash/photos")
"""Where somebody else may take a name."""
FOREIGN = sha256(faults.FOREIGN).hexdigest()
NOTHING = sha256(b"").hexdigest()
"""Of an empty file: where there are no links, one keeps a name for an instant. No file is empty otherwise."""


@dataclass(frozen=True)
class Seen:
    """A file as it was found: its hash, permissions and time."""

    digest: str
    mode: int
    mtime_ns: int


Found = dict[str, Seen]
"""Files by their paths under the folder."""


def torture(folder: Path, seed: int, *, runs: int, minutes: float = 1e9, broken: bool = False) -> Figures:
    """Kill so many processes, or for so long. broken: copies go without a look at what stays, as a control."""
    chance, figures, until = random.Random(seed), Figures(), time.monotonic() + 60 * minutes
    number = 0
    while figures.runs < runs and time.monotonic() < until and not figures.wrong:
        kind = chance.choice([*KINDS])
        number += 1
        base = folder / f"{seed}-{number}"
        figures.add(_Attack(base, kind, chance, broken=broken).figures())
        shutil.rmtree(base)
    return figures


class _Attack:
    """One run, from the first process to the last."""

    def __init__(self, base: Path, kind: str, chance: random.Random, *, broken: bool) -> None:
        self._base, self._kind, self._chance, self._broken = base, kind, chance, broken
        self._figures = Figures()
        self._spoiled = broken or chance.random() < 0.25
        self._faulty = not broken and chance.random() < 0.4

    def figures(self) -> Figures:
        make(self._base, self._chance)
        in_child(partial(note, self._base))
        in_child(partial(_begin, self._base, KINDS[self._kind]))
        if self._spoiled:
            in_child(partial(spoil, self._base))
        before = contents(self._base)
        if self._chance.random() < 0.7:
            self._until_done(before, partial(apply, self._base, self._kind, broken=self._broken), "apply")
            self._judge(in_child(partial(ended, self._base, faulty=self._faulty)))
        else:  # it never ends, and is given up
            self._killed(before, partial(apply, self._base, self._kind, broken=self._broken), "apply")
        if not self._figures.wrong:
            self._until_done(before, partial(undo, self._base, self._kind), "undo")
            self._give_names_back()
            in_child(partial(undo, self._base, self._kind))  # where a file was left
            self._judge(in_child(partial(taken_back, self._base)))
            if self._kind != "delete" and not self._figures.wrong and contents(self._base) != before:
                self._wrong("was taken back, and is not what was")
        return self._figures

    def _give_names_back(self) -> None:
        """Take away the files of somebody else, which must still be there."""
        for path in self._foreign():
            path.unlink()

    def _foreign(self) -> list[Path]:
        found = contents(self._base, hidden=True).items()
        return [self._base / name for name, seen in found if seen.digest == FOREIGN]

    def _until_done(self, before: Found, work: Callable[[], None], what: str) -> None:
        for kill in range(MOST_KILLS + 1):
            if self._killed(before, work, what, last=kill == MOST_KILLS) or self._figures.wrong:
                return
        self._wrong(f"{what} failed by itself")

    def _killed(self, before: Found, work: Callable[[], None], what: str, *, last: bool = False) -> bool:
        """Do some work in a process, killed unless it is the last; whether it ended by itself, and well."""
        by_call = self._chance.random() < 0.7
        call = self._chance.randrange(CALLS) if by_call and not last else None
        seconds = 60.0 if by_call or last else self._chance.random() * SLOWEST
        fault: Callable[[str, str], None] = faults.kill
        name = "killed"
        if self._faulty and call is not None:
            names = [self._base / part / path.removeprefix("photos/") for path in before for part in PLACES]
            self._chance.shuffle(names)
            fault, name = self._chance.choice(
                [(faults.failing(self._chance), "met an error"), (faults.taking(names), "met a file")]
            )
        others = self._foreign()
        ended = faults.ended(work, self._base, call, seconds, fault)
        self._figures.runs += not ended or name != "killed"
        self._figures.count(f"{what} ended" if ended and name == "killed" else f"{what} {name}: {self._kind}")
        for problem in wrong(before, contents(self._base, hidden=True), KINDS[self._kind]):
            self._wrong(f"{what}: {problem}")
        for path in {*others} - {*self._foreign()}:
            self._wrong(f"{what}: {path}, which is somebody else's, is lost")
        return ended

    def _judge(self, answer: object) -> None:
        if not isinstance(answer, list):
            self._wrong("the index or the journal cannot be read")
            return
        for problem in answer:
            self._wrong(problem)

    def _wrong(self, problem: str) -> None:
        self._figures.wrong.append(f"{self._base.name} {self._kind}: {problem}")


def make(base: Path, chance: random.Random) -> None:
    """Files, some of them copies, of different permissions and times."""
    for number in range(CONTENTS):
        data = chance.randbytes(chance.choice((10, 5_000, 300_000)))
        for copy in range(chance.randint(1, COPIES)):
            path = base / "photos" / "abc"[copy] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(chance.choice((0o644, 0o600, 0o664)))
            os.utime(path, ns=(10**18, 10**18 + chance.randrange(10**18)))


def contents(base: Path, *, hidden: bool = False) -> Found:
    """Every file but those of the index; hidden: also what is set aside, and drafts."""
    return {
        path.relative_to(base).as_posix(): Seen(
            sha256(path.read_bytes()).hexdigest(), stat.S_IMODE(path.stat().st_mode), path.stat().st_mtime_ns
        )
        for path in sorted(base.rglob("*"))
        if path.is_file() and "photos.index" not in path.parts and (hidden or not path.name.startswith("."))
    }


def note(base: Path) -> None:
    """Make the index that knows the files."""
    create(base / "photos.index")
    with (
        Index.open(base / "photos.index", writable=True) as index,
        index.writer() as writer,
        writer.transaction() as transaction,
    ):
        for number, (name, seen) in enumerate(contents(base).items()):
            size = (base / name).stat().st_size
            path = name.removeprefix("photos/")
            here = Location(root=str(base / "photos"), path=path, mtime_ns=seen.mtime_ns, size=size)
            one = image(number)
            transaction.add(replace(one, id=seen.digest, facts=replace(one.facts, bytes=size), location=here))


def _request(base: Path, action: Action) -> Request:
    folder = str(base / "trash") if action == "move" else None
    return Request(action=action, folder=folder, tiers=("bytes",), rules=RULES, protect=())


def _begin(base: Path, action: Action) -> None:
    with Index.open(base / "photos.index", writable=True) as index, index.writer() as writer:
        decisions = decide(find(index, ["bytes"], skipped=lambda *_: None), parse_rules(RULES))
        request = _request(base, action)
        applying.begin(writer, request, plan(decisions, request, lambda *_: None))


def apply(base: Path, kind: str, *, broken: bool) -> None:
    """Go on with the run, unless it has ended."""
    _unlike(base, kind)
    if broken:
        applying._check_stays = lambda step: step.kept.lstat()  # the control
    with Index.open(base / "photos.index", writable=True) as index, index.writer() as writer:
        run = continued(index, _request(base, KINDS[kind]))
        if run is not None:
            applying.Applying(writer, run).apply()


def undo(base: Path, kind: str) -> None:
    """Take back what the run did."""
    _unlike(base, kind)
    with (
        Index.open(base / "photos.index", writable=True) as index,
        index.writer() as writer,
        suppress(RunInvalid),  # nothing can come back any more
    ):
        applying.Applying(writer, _run(index)).undo()


def _unlike(base: Path, kind: str) -> None:
    """Make the file system another one: two disks, one without links, or one that shares blocks."""
    link = os.link

    def refusing(source: Any, to: Any, **options: Any) -> None:
        crossing = Path(source).is_relative_to(base / "photos") != Path(to).is_relative_to(base / "photos")
        if kind == "move without links" or crossing:
            raise OSError(errno.EXDEV if crossing else errno.EPERM, "no such link")
        link(source, to, **options)

    if kind in ("move to another disk", "move without links"):
        vars(os)["link"] = refusing
    if kind == "reflink":
        vars(applying)["reflink"] = lambda source, draft, _, facts: files.copy(
            source, draft, sha256(source.read_bytes()).hexdigest(), facts
        )


def wrong(before: Found, now: Found, action: Action) -> list[str]:
    """What is lost, or other than it was."""
    held = Counter(seen.digest for seen in before.values())
    found = Counter(seen.digest for seen in now.values())
    wanted = {digest: 1 if action == "delete" else count for digest, count in held.items()}
    lost = [f"{count - found[digest]} files of {digest[:12]} are lost" for digest, count in wanted.items()]
    lost = [problem for problem, (digest, count) in zip(lost, wanted.items(), strict=True) if found[digest] < count]
    allowed = {path: {seen.digest, NOTHING, FOREIGN} for path, seen in before.items()}
    other = [path for path, seen in now.items() if seen.digest not in allowed.get(path, {seen.digest})]
    return lost + [f"{path} is another file" for path in other]


def ended(base: Path, *, faulty: bool) -> list[str]:
    """What is wrong after a run has ended: a step that is neither done nor left, or a file that is still there.

    faulty: a step may be left for other reasons than that the file that stays has changed.
    """
    with Index.open(base / "photos.index") as index:
        run = _run(index)
        problems = [] if run.state == "finished" else [f"its state is {run.state!r}"]
        problems += [] if faulty else _leftovers(base) + _untold(index)
        for number, step in enumerate(run.steps):
            assert step is not None
            if number in run.skipped and not faulty and files.holds(step.kept, step.kept_image):
                problems.append(f"step {number} was left: {run.skipped[number]}")
            if (number in run.done) == (number in run.skipped):
                problems.append(f"step {number} is not either done or left")
            elif not faulty and (number in run.done) != _went(run, number):
                problems.append(f"step {number} is not what the journal says")
    return problems


def _run(index: Index) -> Run:
    """The one run of an index."""
    (path,) = (index.path / FOLDER).glob("*.jsonl")
    return named(index, path.stem)


def _went(run: Run, number: int) -> bool:
    step = run.steps[number]
    assert step is not None
    if run.request.action == "hardlink":
        return os.path.samestat(step.file.stat(), step.kept.stat())
    if run.request.action == "reflink":
        return number in run.done
    return not step.file.exists() and (step.to is None or files.holds(Path(step.to), step.image))


def taken_back(base: Path) -> list[str]:
    """What is wrong after a run was taken back."""
    with Index.open(base / "photos.index") as index:
        run = _run(index)
        return [*([] if run.over else ["it is not over"]), *_leftovers(base), *_untold(index)]


def _leftovers(base: Path) -> list[str]:
    return [f"{name} is left over" for name in contents(base, hidden=True).keys() - contents(base).keys()]


def _untold(index: Index) -> list[str]:
    """Files that are gone, and that the index shows all the same; or the other way round."""
    rowids = index.catalog.rowids_by_id().tolist()
    shown = {path for one in index.catalog.records(rowids).values() if not one.missing for path in one.paths}
    here = {str(path) for path in (index.path.parent / "photos").rglob("*.jpg")}
    return [f"the index is wrong about {path}" for path in shown ^ here]


def spoil(base: Path) -> None:
    """Change a file that is to stay for others, as somebody may between the look and the run; size and time stay."""
    with Index.open(base / "photos.index") as index:
        run = _run(index)
    for step in run.taken(set(range(len(run.steps)))):
        facts, data = step.kept.stat(), bytearray(step.kept.read_bytes())
        data[0] ^= 1
        step.kept.write_bytes(data)
        os.utime(step.kept, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        return
