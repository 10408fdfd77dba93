"""The command `teach`: more and less like this, kept by name, made a label."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.shown import checked_id, is_picture, print_hits, print_lines
from search.console import DEFAULT_INDEX, Json, default_index, plural, print_json, say, warn

if TYPE_CHECKING:
    from api.serving.questions import SearchOptions
    from search.feedback import Marks, TaughtQuestion
    from search.index import Index
    from search.labelling import Labelled, Share
    from search.teaching import Taught

FAR_BEYOND = 10
"""Images that would get a label for each mark that is: beyond, the marks are too few to tell how precise it is."""


def teach(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    asks: Annotated[
        str | None, typer.Argument(metavar="IMAGE|WORDS", help="The question to begin with; marks alone can do.")
    ] = None,
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
        float | None, typer.Option(metavar="SHARE", help="Or so many of the marks that score so are right: .95")
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
    from search.feedback import checked_marks
    from search.filters import parse_short
    from search.index import Index
    from search.teaching import Teacher

    if asks is not None and id is not None:
        raise typer.BadParameter("Begin with one question.", param_hint="IMAGE|WORDS")
    if name is None and (label is not None or apply or delete or round is not None):
        raise typer.BadParameter("Say by --name what is meant: --list shows names.", param_hint="--name")
    if precision is not None and not 0 < precision <= 1:
        raise typer.BadParameter("A share above 0, at most 1, such as .95.", param_hint="--precision")
    marks = checked_marks(_ids(more or (), "--more"), _ids(less or (), "--less"))
    changes = name is not None and not listed
    with Index.open(directory, writable=changes) as index:
        if listed:
            _list(index, as_json)
            return
        teacher = Teacher(index)
        if delete:
            assert name is not None
            _delete(index, name)
            return
        options = SearchOptions(k=k, filter=None if filter is None else parse_short(filter), space=space)
        if name is None:
            question = _question(index, asks, id, options)
            answer = teacher.answer(question, marks, k=k)
            _show(answer, None, None, as_json)
            return
        here = _kept(index, name, asks, id, options, marks, round)
        session = index.catalog.session(name)
        if label is None and not apply:
            path = session.path(here)
            before = session.marks(path[-2].id) if len(path) > 1 else None
            answer = teacher.answer(session.question, session.marks(here), k=k, before=before, kept=True)
            _show(answer, session.id, here, as_json)
            return
        from search.labelling import again, preview

        if label is None:
            found = again(index, teacher, session)
        else:
            found = preview(index, teacher, session, label, round_id=here, above=above, precision=precision)
        applied = None
        if apply:
            from search.labelling import apply as give
            from search.lock import PATIENCE

            with index.writer(timeout=PATIENCE) as writer:
                applied = give(writer, session.id, found)
    _show_label(found, applied, as_json)


def _question(index: Index, asks: str | None, image_id: str | None, options: SearchOptions) -> TaughtQuestion:
    from api.ask import Asked, query_of
    from api.serving.feedback import kept_form
    from api.serving.timing import Timing
    from search.feedback import TaughtQuestion

    if asks is None and image_id is None:
        return TaughtQuestion(space=index.space(options.space).name, filter=options.filter)
    image = Path(asks) if asks is not None and is_picture(asks) else None
    asked = Asked(
        image=image,
        text=asks if image is None else None,
        id=None if image_id is None else checked_id(image_id),
        box=None,
        options=options,
    )
    query, _ = query_of(index, asked, Timing(), warn=warn)
    return kept_form(query, options)


def _kept(
    index: Index,
    name: str,
    asks: str | None,
    image_id: str | None,
    options: SearchOptions,
    marks: Marks,
    after: str | None,
) -> str:
    """Keep a question and marks under a name, or marks alone where it is there. Returns the round."""
    from search.errors import UnknownImage, UnknownSession
    from search.lock import PATIENCE

    session = None
    try:
        session = index.catalog.session(name)
    except UnknownSession:
        if asks is None and image_id is None and not marks.more:
            raise
    if session is not None and (asks is not None or image_id is not None):
        raise typer.BadParameter(f"{name} has its question already: mark images, or take another name.")
    here = None if session is None else session.path(after)[-1].id
    if session is not None and not len(marks):
        assert here is not None
        return here
    wanted = [*marks.more, *marks.less]
    if len(index.catalog.rowids(wanted)) < len(wanted):
        raise UnknownImage("One of the marked images is not in the index.")
    question = None if session is not None else _question(index, asks, image_id, options)
    with index.writer(timeout=PATIENCE) as writer, writer.transaction() as transaction:
        if question is not None:
            root = here = transaction.start_session(question, name)
        else:
            assert session is not None
            root = session.id
        assert here is not None
        return transaction.add_round(root, here, marks) if len(marks) else here


def _ids(given: Sequence[str], option: str) -> list[str]:
    from indexer.sources import as_on_disk

    ids = []
    for text in given:
        if is_picture(text):
            with as_on_disk(Path(text)).open("rb") as file:
                ids.append(hashlib.file_digest(file, "sha256").hexdigest())
        else:
            ids += [checked_id(one.strip(), option) for one in text.split(",") if one.strip()]
    return ids


def _list(index: Index, as_json: bool) -> None:
    from api.http.feedback_schemas import SessionSummary

    kept = [SessionSummary.of(session) for session in index.catalog.sessions()]
    if as_json:
        print_json({"sessions": [one.model_dump() for one in kept]})
        return
    if not kept:
        say("Nothing is kept yet: --name keeps a question and its marks.")
    for one in kept:
        gives = f", labels {one.label}" if one.label else ""
        say(f"{one.name or one.id}: {plural(one.rounds, 'round')}, {one.more} more, {one.less} less{gives}")


def _delete(index: Index, name: str) -> None:
    from search.lock import PATIENCE

    session = index.catalog.session(name)
    with index.writer(timeout=PATIENCE) as writer, writer.transaction() as transaction:
        transaction.delete_session(session.id)
    warn(f"{name} is forgotten. Labels that it gave stay.")


def _show(answer: Taught, session: str | None, here: str | None, as_json: bool) -> None:
    from api.http.search_schemas import HitAnswer

    def shown(hits: Sequence[Any]) -> list[dict[str, Any]]:
        return [HitAnswer.model_validate(hit).model_dump() for hit in hits]

    told: dict[str, Any] = {
        "hits": shown(answer.hits),
        "uncertain": shown(answer.uncertain),
        "space": answer.space,
        "method": answer.method,
        "more": [*answer.marks.more],
        "less": [*answer.marks.less],
        "ignored": answer.ignored,
        "cut": answer.cut,
        "undecided": answer.undecided,
        "stable": answer.stable,
        "session": session,
        "round": here,
    }
    if as_json:
        print_json(told)
        return
    print_hits(told)
    if answer.uncertain:
        say("These would tell most, marked as more or as less:")
        print_lines(told["uncertain"])
    if answer.cut is not None:
        warn(f"By your marks, images above {answer.cut:.3f} are more probably what you look for than not.")
    if answer.stable:
        warn("Further marks would change little.")


def _show_label(found: Labelled, applied: int | None, as_json: bool) -> None:
    from api.http.feedback_schemas import LabelledAnswer

    told = LabelledAnswer.of(found, applied).model_dump()
    if as_json:
        print_json(told)
        return
    rule, measured = found.rule, found.measured
    say(
        f"{rule.label}: images that score {rule.above:.4f} or more. By {measured.more} marks that are and "
        f"{measured.less} that are not, {_share(measured.precision)} of these are right, and they are "
        f"{_share(measured.recall)} of all."
    )
    if applied is not None:
        say(f"{plural(applied, 'image')} got the label; {found.already:,} had it.")
        return
    say(f"{plural(len(found.new), 'image')} would get the label; {found.already:,} have it. --apply gives it.")
    if len(found.new) > FAR_BEYOND * measured.more:
        warn(f"{measured.more} marks say little of so many images. Mark some of the most doubtful, and look again.")
    if found.doubtful:
        say("The most doubtful of them:")
        print_lines(told["doubtful"])


def _share(share: Share) -> str:
    value = "none" if share.value is None else f"{share.value:.0%}"
    return f"{value} ({share.low:.0%} to {share.high:.0%})"
