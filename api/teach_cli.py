"""The command `teach`: more and less like this, kept by name, made a label."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.shown import checked_id, meant, print_hits, print_lines
from search.console import DEFAULT_INDEX, Json, default_index, plural, print_json, say, warn

if TYPE_CHECKING:
    from api.teaching import Lessons

WELL_BACKED = 0.8
"""Share of a rule's images, below which its marks speak for so few of them that it is said."""


def teach(
    directory: Annotated[
        str | None, typer.Argument(metavar="DIR", help="The index; none with --server.", show_default=DEFAULT_INDEX)
    ] = None,
    asks: Annotated[
        str | None, typer.Argument(metavar="IMAGE|WORDS", help="The question to begin with; marks alone can do.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Teach a server instead of opening an index.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="LOOKALIKE_API_KEY", help="The server's key.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="Begin with an indexed image instead.")] = None,  # noqa: A002
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Keep it, or go on with what is kept.")] = None,
    more: Annotated[
        list[str] | None,
        typer.Option(metavar="ID|FILE", help="An image to find more like; repeat for several."),
    ] = None,
    less: Annotated[list[str] | None, typer.Option(metavar="ID|FILE", help="An image to find less like.")] = None,
    round: Annotated[  # noqa: A002
        str | None, typer.Option("--round", metavar="ROUND", help="Go on from this round.  [the newest]")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the last marks of --name back.")] = False,
    k: Annotated[int, typer.Option("-k", min=1, max=10_000, help="How many hits.")] = 10,
    filter: Annotated[  # noqa: A002
        str | None, typer.Option(metavar="EXPR", help="E.g. label=cat,width>=1000,path~2024/*")
    ] = None,
    space: Annotated[str | None, typer.Option(metavar="SPACE", help="Default: the index's default.")] = None,
    label: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Say which images would get this label, and how precisely.")
    ] = None,
    above: Annotated[float | None, typer.Option(min=-1, max=1, help="They score at least this.")] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Or the lowest score at which so many are right, by the marks and by how many images score so: .95",
        ),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Give the label; without --label, by the rule kept under --name.")
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="List what is kept.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Forget what is kept under --name.")] = False,
    as_json: Json = False,
) -> None:
    """Adapt a question to images that are more, and less, what you look for; make it a label."""
    from api.serving.questions import SearchOptions
    from api.teaching import Lesson, Rule
    from search.feedback import checked_marks
    from search.filters import parse_short

    if server is not None:
        if asks is not None:
            raise typer.BadParameter("Teach either an index or a server.", param_hint="--server")
        directory, asks = None, directory
    if asks is not None and id is not None:
        raise typer.BadParameter("Begin with one question.", param_hint="IMAGE|WORDS")
    if name is None and (label is not None or apply or delete or undo or round is not None):
        raise typer.BadParameter("Say by --name what is meant: --list shows names.", param_hint="--name")
    if undo and (asks is not None or more or less or round is not None or id is not None or label is not None or apply):
        raise typer.BadParameter("It takes marks back, and nothing else at once.", param_hint="--undo")
    if label is None and not apply and (above is not None or precision is not None):
        raise typer.BadParameter("It is labels that need a score: --label LABEL.", param_hint="--above, --precision")
    if precision is not None and not 0 < precision <= 1:
        raise typer.BadParameter("A share above 0, at most 1, such as .95.", param_hint="--precision")
    image, words = (None, None) if asks is None else _begun(asks)
    lesson = Lesson(
        image=image,
        text=words,
        id=None if id is None else checked_id(id),
        name=name,
        marks=checked_marks(_ids(more or (), "--more"), _ids(less or (), "--less")),
        after=round,
        options=SearchOptions(k=k, filter=None if filter is None else parse_short(filter), space=space),
    )
    where = Path(directory) if directory is not None else None
    if where is not None and where.is_file():
        raise typer.BadParameter("Name the index before the picture: lookalike teach INDEX PICTURE.", param_hint="DIR")
    with _lessons(where, server, api_key, changes=name is not None and not listed) as lessons:
        if listed:
            _list(lessons.sessions(), as_json)
        elif delete:
            assert name is not None
            lessons.forget(name)
            warn(f"{name} is forgotten. Labels that it gave stay.")
        elif undo:
            _show(lessons.undo(lesson), as_json)
        elif label is not None or apply:
            _show_label(
                lessons.label(lesson, Rule(label=label, above=above, precision=precision, given=apply)), as_json
            )
        else:
            _show(lessons.teach(lesson), as_json)


def _lessons(
    directory: Path | None, server: str | None, api_key: str | None, *, changes: bool
) -> AbstractContextManager[Lessons]:
    from api.http.access import key_to_send
    from api.teaching import lessons_of_index, lessons_of_server

    if server is None:
        return lessons_of_index(directory or default_index(), writable=changes, warn=warn)
    return lessons_of_server(server, None if api_key is None else key_to_send(api_key))


def _begun(asks: str) -> tuple[Path | None, str | None]:
    """The picture or the words to begin with."""
    from search.errors import PromptInvalid
    from search.query.prompt import caret

    try:
        picture, words, prompt = meant(asks)
    except PromptInvalid as error:
        raise typer.BadParameter(f"{error.message}\n{caret(asks, error.position)}", param_hint="IMAGE|WORDS") from error
    if prompt is not None:
        raise typer.BadParameter(
            "Begin with one picture, or with words alone; marks say the rest. Quotes make it words.",
            param_hint="IMAGE|WORDS",
        )
    return picture, words


def _ids(given: Sequence[str], option: str) -> list[str]:
    from indexer.sources import as_on_disk
    from search.errors import PromptInvalid

    ids = []
    for text in given:
        picture = None
        with suppress(PromptInvalid):  # then it is no id either
            picture = meant(text).picture
        if picture is not None:
            with as_on_disk(picture).open("rb") as file:
                ids.append(hashlib.file_digest(file, "sha256").hexdigest())
        else:
            ids += [checked_id(one.strip(), option) for one in text.split(",") if one.strip()]
    return ids


def _list(kept: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json({"sessions": [*kept]})
        return
    if not kept:
        say("Nothing is kept yet: --name keeps a question and its marks.")
    for one in kept:
        gives = f", labels {one['label']}" if one["label"] else ""
        marks = f"{one['more']} more, {one['less']} less"
        say(f"{one['name'] or one['id']}: {plural(one['rounds'], 'round')}, {marks}{gives}")


def _show(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    print_hits(told)
    if told["uncertain"]:
        say("These would tell most, marked as more or as less:")
        print_lines(told["uncertain"])
    if told["cut"] is not None:
        warn(f"By your marks, images above {told['cut']:.3f} are more probably what you look for than not.")
    if told["stable"]:
        warn("Further marks would change little.")
    if told["round"] is not None:
        count = f"{len(told['more'])} more, {len(told['less'])} less"
        warn(f"Kept, with {count}. --undo takes the last marks back; --round {told['round']} goes on from here.")


def _show_label(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    rule = told["rule"]
    measured = rule["measured"]
    say(
        f"{rule['label']}: images that score {rule['above']:.4f} or more. By {measured['more']} marks that are and "
        f"{measured['less']} that are not, {_share(measured['precision'])} of these are right, and they are "
        f"{_share(measured['recall'])} of all."
    )
    already = f"{told['already']:,}"
    if told["applied"] is not None:
        say(f"{plural(told['applied'], 'image')} got the label; {already} had it.")
        return
    say(f"{plural(told['new'], 'image')} would get the label; {already} have it. --apply gives it.")
    if measured["backed"] is not None and measured["backed"] < WELL_BACKED:
        warn(
            f"Your marks speak for {measured['backed']:.0%} of the images that score so. Mark some of the most "
            "doubtful, and look again."
        )
    if told["doubtful"]:
        say("The most doubtful of them:")
        print_lines(told["doubtful"])


def _share(share: Mapping[str, Any]) -> str:
    value = "none" if share["value"] is None else f"{share['value']:.0%}"
    return f"{value} ({share['low']:.0%} to {share['high']:.0%})"
