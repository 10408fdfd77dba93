"""The commands `boards` and `watches`: what a server keeps in an index, shown and taken along without one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from search.console import DEFAULT_INDEX, Json, default_index, plural, print_json, say

if TYPE_CHECKING:
    from api.serving.boards import WholeBoard
    from search.index import Index

Directory = Annotated[Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)]

ACTIONS = ("list", "show", "export", "add", "drop")


def boards(
    directory: Directory,
    action: Annotated[
        Literal["list", "show", "export"], typer.Argument(metavar="[list|show|export]", show_default=False)
    ] = "list",
    board: Annotated[int | None, typer.Argument(metavar="BOARD", help="Its number.", show_default=False)] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="export: a new folder for the original files.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(metavar="OUT.png", help="export: draw its images as one.")] = None,
    as_json: Json = False,
) -> None:
    """List an index's boards, show one, or export one: its original files, or a contact sheet."""
    if action == "list":
        if board is not None:
            raise typer.BadParameter(f"To show a board: lookalike boards {directory} show {board}", param_hint="BOARD")
        _list_boards(directory, as_json)
        return
    if board is None:
        raise typer.BadParameter(f"Name a board: lookalike boards {directory} {action} 1", param_hint="BOARD")
    if action == "export" and (to is None) == (sheet is None):
        raise typer.BadParameter("Say what to write: --to FOLDER, or --sheet OUT.png.", param_hint="export")
    if action == "show" and not (to is None and sheet is None):
        raise typer.BadParameter("Only export writes files.", param_hint="--to" if to else "--sheet")
    from api.http.board_schemas import BoardExport
    from api.serving.boards import whole_board
    from search.index import Index  # imports faiss and sqlalchemy: not for --help

    with Index.open(directory) as index:
        whole = whole_board(index, board)
        described = BoardExport.whole(whole.board, whole.items, whole.comments)
        written: list[str] = []
        if to is not None:
            written = _export(index, whole, to)
        elif sheet is not None:
            _draw(index, whole, sheet)
            written = [str(sheet)]
    if as_json:
        print_json(described.model_dump() | ({"written": written} if written else {}))
    elif written:
        say(f"Wrote {plural(len(written), 'file')} to {to or sheet}.")
    else:
        _show(whole)


def _list_boards(directory: Path, as_json: bool) -> None:
    from api.http.board_schemas import BoardAnswer
    from search.catalog.boards import read_boards
    from search.index import Index

    with Index.open(directory) as index, index.catalog.reading() as connection:
        found = read_boards(connection)
    if as_json:
        print_json({"index": str(directory), "boards": [BoardAnswer.of(one).model_dump() for one in found]})
        return
    for one in found:
        say(f"{one.number:>4}  {plural(one.items, 'item'):>10}  {one.name}")
    if not found:
        say("No boards. A server makes them: POST /v1/boards, or client.boards.create in Python.")


def _show(whole: WholeBoard) -> None:
    say(f"{whole.board.name}{': ' if whole.board.note else ''}{whole.board.note}")
    for item in whole.items:
        what = f"question: {item.name}" if item.image is None else item.image + (" (gone)" if item.gone else "")
        votes = f"  [{plural(len(item.votes), 'vote')}]" if item.votes else ""
        say(f"{item.number:>4}  {what}{votes}{'  ' if item.note else ''}{item.note}")
    for comment in whole.comments:
        on = "" if comment.item is None else f" on {comment.item}"
        say(f"{comment.name}{' (guest)' if comment.guest else ''}{on}: {comment.text}")


def _export(index: Index, whole: WholeBoard, to: Path) -> list[str]:
    from api.http.board_schemas import BoardExport
    from api.serving.boards import named_files
    from search.errors import StorageFailed
    from search.files import storage_errors

    with storage_errors(to):
        if to.exists():
            raise StorageFailed(f"{to} is there already. Name a new folder.")
        to.mkdir(parents=True)
        names: dict[int, str] = {}
        for item, name, file in named_files(index, whole):
            with (to / name).open("xb") as copy:
                shutil.copyfileobj(file, copy)
            names[item] = name
        described = BoardExport.whole(whole.board, whole.items, whole.comments, names)
        (to / "board.json").write_text(described.model_dump_json(indent=2), encoding="utf-8")
    return [str(to / name) for name in ("board.json", *names.values())]


def _draw(index: Index, whole: WholeBoard, out: Path) -> None:
    from contextlib import suppress

    from api.errors import FileGone
    from api.serving.pictures import open_original
    from indexer.pictures.sheet import Picture, draw_sheet, is_drawable

    if not (out.parent.is_dir() and is_drawable(out)):
        raise typer.BadParameter("Name a .png or .jpg file in a folder that is there.", param_hint="--sheet")
    cells = []
    for place, item in enumerate(whole.images, start=1):
        data = None
        with suppress(FileGone), open_original(index, item.image or "").file as file:
            data = file.read()
        cells.append(Picture(data=data, heading=f"{place}", caption=item.note or (item.image or "")[:16]))
    draw_sheet(None, cells, out)


def watches(
    directory: Directory,
    action: Annotated[
        Literal["list", "add", "drop"], typer.Argument(metavar="[list|add|drop]", show_default=False)
    ] = "list",
    watch: Annotated[
        str | None, typer.Argument(metavar="NAME|WATCH", help="A name to add, a number to drop.", show_default=False)
    ] = None,
    question: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="add: a search over HTTP with a cut, as JSON.")
    ] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="add: the address that is told.")] = None,
    form: Annotated[Literal["json", "discord"], typer.Option(help="add: how it is told.")] = "json",
    as_json: Json = False,
) -> None:
    """List an index's watches, add one, or drop one. A server tells their addresses of new images that match."""
    if action != "list" and watch is None:
        raise typer.BadParameter(f"Say which: lookalike watches {directory} {action} ...", param_hint="NAME|WATCH")
    if action == "add" and (question is None or url is None):
        raise typer.BadParameter("A watch needs a question and an address: --question FILE.json --url URL.")
    if action != "add" and not (question is None and url is None):
        raise typer.BadParameter("Only add takes a question and an address.")
    from search.index import Index  # imports faiss and sqlalchemy: not for --help

    with Index.open(directory, writable=action != "list") as index:
        if action == "add" and watch is not None and question is not None and url is not None:
            _add_watch(index, watch, question, url, form, as_json)
        elif action == "drop":
            if watch is None or not watch.isdecimal() or len(watch) > 15:
                raise typer.BadParameter("A watch is named by its number, which list shows.", param_hint="WATCH")
            with index.writer() as writer, writer.transaction() as transaction:
                transaction.drop_watch(int(watch))
            print_json({"dropped": int(watch)}) if as_json else say(f"Dropped the watch {watch}.")
        else:
            _list_watches(index, as_json)


def _list_watches(index: Index, as_json: bool) -> None:
    from api.http.watch_schemas import WatchAnswer
    from search.catalog.watches import read_watches

    with index.catalog.reading() as connection:
        found = [WatchAnswer.of(one) for one in read_watches(connection)]
    if as_json:
        print_json({"index": str(index.path), "watches": [one.model_dump() for one in found]})
        return
    for one in found:
        problem = f"  {one.problem}" if one.problem else ""
        say(f"{one.id:>4}  {one.name}  {one.address}  {one.waiting} waiting, {one.failed} failed{problem}")
    if not found:
        say(f"No watches. To add one: lookalike watches {index.path} add NAME --question FILE.json --url URL")


def _add_watch(
    index: Index, name: str, question: Path, url: str, form: Literal["json", "discord"], as_json: bool
) -> None:
    import secrets

    from api.errors import QuestionInvalid
    from api.serving.notify import checked_url
    from api.serving.questions import read_json
    from api.serving.saved import checked_text, read_given
    from api.serving.watched import checked_watch
    from search.files import storage_errors

    with storage_errors(question):
        data = question.read_bytes()
    try:
        body = read_json(data)
    except (ValueError, RecursionError) as error:
        raise QuestionInvalid(f"{question} is not JSON.") from error
    if not isinstance(body, dict):
        raise QuestionInvalid(
            f'{question} holds no question, such as {{"parts": [{{"id": "..."}}], "min_score": 0.7}}.'
        )
    saved = checked_watch(read_given(body, str(question)), index)
    secret = secrets.token_hex(32)
    address = checked_url(url, private=True)  # the server that sends decides, by its own setting
    with index.writer() as writer, writer.transaction() as transaction:
        number = transaction.add_watch(
            checked_text(name, "A name"), saved.to_json(), url=address, form=form, secret=secret
        )
    if as_json:
        print_json({"watch": number, "secret": secret})
    else:
        say(f"Added the watch {number}. Its messages are signed with this secret, which is shown once: {secret}")


class _DefaultIndexCommand(TyperCommand):
    """Takes the default index where what comes first is what to do: `boards show 1`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the index first. Called by Click."""
        first = next((one for one in args if not one.startswith("-")), "")
        if first in ACTIONS and not Path(first).is_dir():
            args = [str(default_index()), *args]
        return super().parse_args(ctx, args)


def register(add: Callable[..., Any]) -> None:
    """Add the commands to the application."""
    add("boards", cls=_DefaultIndexCommand)(boards)
    add("watches", cls=_DefaultIndexCommand)(watches)
