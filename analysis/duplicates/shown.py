"""What `dups` prints: groups, what is extra, and what a run did."""

from __future__ import annotations

import shlex
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from analysis.duplicates.against import Comparison
from analysis.duplicates.decided import Listing
from analysis.duplicates.groups import PROMISES, SURE, Decision, File
from analysis.duplicates.runs import Run
from search.console import file_size, plural, say

SHOWN_GROUPS = 20
"""Groups printed; `--json` has all."""
MORE = "--report OUT.html shows more, --json prints all"
DONE = {"move": "moved", "hardlink": "linked", "reflink": "made to share blocks", "delete": "deleted"}
MOVED = "On the same disk, a move frees nothing until you delete {}."


def extras(decisions: Sequence[Decision]) -> dict[str, int]:
    """The files that need not stay, each once, and their bytes: one that a group keeps may go with another."""
    return {str(file.path): file.location.size for decision in decisions for file in decision.goes}


def groups_to_json(found: Listing, run: Run | None, left: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What `--json` prints. run: what was done; left: files that were left before, and why."""
    going = extras(found.decisions)
    return {
        "groups": [group_to_json(decision, going) for decision in found.decisions],
        "images": len(going),
        "bytes": sum(going.values()),
        "spared": [{"id": file.image.id, "paths": [str(file.path)]} for file in found.spared],
        "run": None if run is None else run_to_json(run, left, back=False),
    }


def group_to_json(decision: Decision, going: Container[str]) -> dict[str, Any]:
    """A group, with an entry for each file. going: paths of files that need not stay."""
    return {
        "tier": decision.group.tier,
        "images": [
            {
                "id": file.image.id,
                "paths": [str(file.path)],
                "score": round(decision.group.scores.get(file.image.id, 1.0), 4),
                "keep": str(file.path) not in going,
                "why": decision.reason(file),
            }
            for file in decision.group.files
        ],
        "file_count": len(decision.group.files) + decision.group.unlisted,
    }


def comparison_to_json(found: Comparison, against: Path) -> dict[str, Any]:
    """What two indexes share: files of the first one that may go have `keep` false. against: the other one."""
    extra = {str(file.path): file.location.size for one in found.shared for file in one.extra}
    groups = [
        {
            "tier": one.tier,
            "images": [
                {
                    "id": file.image.id,
                    "paths": [str(file.path)],
                    "score": round(one.scores.get(file.image.id, 1.0), 4),
                    "keep": there or str(file.path) not in extra,
                    "why": f"in {against}" if there else None,
                    "against": there,
                }
                for there, files in ((False, one.files), (True, one.others))
                for file in files
            ],
        }
        for one in found.shared
    ]
    compared = {"index": str(against), "images": found.images, "found": found.found, "not_compared": found.unseen}
    return {"groups": groups, "images": len(extra), "bytes": sum(extra.values()), "against": compared}


def print_comparison(found: Comparison, index: Path, against: Path) -> None:
    """Print what two indexes share, and how much."""
    names = (index.name, against.name) if index.name != against.name else (str(index), str(against))
    shown, width = "", max(map(len, names))
    for one in found.shared[:SHOWN_GROUPS]:
        if one.tier != shown:
            shown = one.tier
            say(f"Same {shown}: {PROMISES[one.tier]}")
        for name, files in zip(names, (one.files, one.others), strict=True):
            for file in files:
                say(f"  {name.ljust(width)}  {file.path}")
        say("")
    if len(found.shared) > SHOWN_GROUPS:
        say(f"... and {plural(len(found.shared) - SHOWN_GROUPS, 'more group')}; {MORE}")
    say(f"{found.found:,} of {plural(found.images, 'image')} of {against} are in {index} too.")


def run_to_json(run: Run, left: Sequence[tuple[str, str]], *, back: bool) -> dict[str, Any]:
    """What a run did. left: files that were left before it began, and why. back: it was taken back."""
    return {
        "name": run.name,
        "action": run.request.action,
        "folder": run.request.folder,
        "steps": len(run.steps),
        "done": len(run.done),
        "undone": len(run.undone),
        "bytes": run.bytes,
        "over": run.over,
        "skipped": [{"path": path, "why": why} for path, why in [*left, *skipped_files(run, back=back)]],
    }


def skipped_files(run: Run, *, back: bool) -> list[tuple[str, str]]:
    """Files that a run left, or did not bring back, and why."""
    numbers = sorted(set(run.skipped) & run.gone if back and run.request.action != "delete" else run.skipped)
    return [(str(step.file), run.skipped[number]) for number in numbers if (step := run.steps[number]) is not None]


def sentence(run: Run, *, back: bool) -> str:
    """What a run did, for people. back: it was taken back."""
    done = f"{plural(len(run.done), 'file')} {DONE[run.request.action]}, {file_size(run.bytes)}"
    if run.request.action == "delete":
        return f"{done}. The run is given up." if back else f"{done}."
    if back:
        said = f"{len(run.undone):,} of {plural(len(run.done), 'file')} of run {run.name} taken back."
        return f"{said} {run.request.folder} stays: delete it, if it is empty." if run.request.folder else said
    moved = f" {MOVED.format(run.request.folder)}" if _on_same_disk(run) else ""
    back_by = f"lookalike dups {shlex.quote(str(run.path.parent.parent))} --undo {run.name}"  # last, to be pasted
    return f"{done}.{moved} To take it back: {back_by}"


def _on_same_disk(run: Run) -> bool:
    """Whether a run moved files to a folder on a disk that they lay on."""
    folder = run.request.folder
    return folder is not None and run.devices.get(folder) in {
        device for place, device in run.devices.items() if place != folder
    }


def spared_files(spared: Sequence[File], index: Path) -> str:
    """That files stay because decisions name them, and how to take that back; empty where none does."""
    if not spared:
        return ""
    alone, images = len(spared) == 1, len({file.image.id for file in spared})
    named = "its picture" if alone else "their picture" if images == 1 else "their pictures"
    why = f"because a decision names {named}."
    place, path = (shlex.quote(str(one)) for one in (index, spared[0].path))
    forget = f"lookalike dups {place} {path} --forget"
    said = f"{plural(len(spared), 'file')} {'stays' if alone else 'stay'} {why}"
    if images == 1:
        return f"{said} To take that back: {forget}"
    return f"{said} To list decisions: lookalike dups {place} --decisions. To take back those about a picture: {forget}"


def _word(decision: Decision, file: File, going: Container[str]) -> str:
    """What to do with a file of a group, in five letters."""
    if decision.group.tier not in SURE:
        return "best " if file is decision.keep else "look "
    return "extra" if str(file.path) in going else "keep "


def _share(part: int, whole: int) -> str:
    """Bytes, and what share of all files they are."""
    share = part / whole if whole else 0.0
    return f"{file_size(part)} ({share:.{0 if share >= 0.01 or not part else 1}%} of {file_size(whole)})"


def print_groups(found: Listing, index: Path, whole: int) -> None:
    """Print groups, the kept file of each first. whole: bytes of all files of the index."""
    decisions = found.decisions
    going, shown = extras(decisions), ""
    for decision in decisions[:SHOWN_GROUPS]:
        if decision.group.tier != shown:
            shown = decision.group.tier
            say(f"{'Alike' if shown == 'alike' else f'Same {shown}'}: {PROMISES[decision.group.tier]}")
        for file in sorted(decision.group.files, key=lambda file: file is not decision.keep):
            why = decision.reason(file)
            say(f"  {_word(decision, file, going)}  {file.path}{f'  ({why})' if why else ''}")
        say("")
    if len(decisions) > SHOWN_GROUPS:
        say(f"... and {plural(len(decisions) - SHOWN_GROUPS, 'more group')}; {MORE}")
    sure = sum(decision.group.tier in SURE for decision in decisions)
    if sure:
        say(f"{plural(sure, 'group')}: {plural(len(going), 'extra file')}, {_share(sum(going.values()), whole)}")
    if sure < len(decisions):
        say(
            f"{plural(len(decisions) - sure, 'group')} to look at: only equal bytes or pixels make a file extra. "
            "Decide yourself which of these you want; --report OUT.html shows them."
        )
    if going:
        say("Nothing was changed. To move the extra files away: --apply move=FOLDER")
    if not decisions:
        say("No other duplicates." if found.spared else "No duplicates.")
    if found.spared:
        say(spared_files(found.spared, index))
