"""The `lookalike` command: search and serve, and all the other rooms' commands put together."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer

import analysis.cli
import api.boards_cli
import indexer.cli
import search.cli
from analysis.errors import AnalysisError
from api.errors import ApiError
from api.explain_cli import explain
from api.prompt_command import PromptCommand
from api.shown import Meant, checked_id, meant, numbers, print_hits
from api.teach_cli import teach
from indexer.errors import IndexerError
from search.console import (
    DEFAULT_INDEX,
    Json,
    default_index,
    plural,
    prepare_streams,
    print_json,
    print_paths,
    say,
    warn,
)
from search.errors import SearchError
from search.names import escaped

EXIT_INTERNAL = 70
EXIT_IO = 74
USAGE_ERROR = cast("type[typer.BadParameter]", typer.BadParameter.__base__)
"""Every mistake on a command line; Typer has no public name for it."""

app = typer.Typer(
    name="lookalike",
    help="Which of my images look like this one?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"lookalike {version('lookalike')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


indexer.cli.register(app.command)
analysis.cli.register(app.command)


@app.command("search", cls=PromptCommand)
def search_command(
    asks: Annotated[
        str | None,
        typer.Argument(metavar="IMAGE|WORDS", help="The picture to find lookalikes of, what they show, or both."),
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="Search by an indexed image instead.")] = None,  # noqa: A002
    index: Annotated[Path | None, typer.Option(metavar="DIR", help="The index.")] = None,
    server: Annotated[str | None, typer.Option(metavar="URL", help="Ask a server instead of opening an index.")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="LOOKALIKE_API_KEY", help="The server's key.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=10_000, help="How many hits.")] = 10,
    min_score: Annotated[float | None, typer.Option(min=-1, max=1, help="Leave out hits below this score.")] = None,
    max_fmr: Annotated[
        str,
        typer.Option(metavar="SHARE", help="Leave out hits with a higher false-match rate; 1 keeps all."),
    ] = "auto",
    filter: Annotated[  # noqa: A002
        str | None, typer.Option(metavar="EXPR", help="E.g. label=cat,width>=1000,path~2024/*")
    ] = None,
    space: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the index's default.")] = None,
    box: Annotated[str | None, typer.Option(metavar="X,Y,W,H", help="Look at this part only, in pixels.")] = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="Show images that look the same once, with their number.")
    ] = False,
    turns: Annotated[bool, typer.Option("--turns", help="Find turned and mirrored copies too.")] = False,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="In a space of regions: order the ten best by where the picture lies.")
    ] = False,
    combine: Annotated[
        str, typer.Option(metavar="sum|best", help="Like all parts together, or like the best of them.")
    ] = "sum",
    paths: Annotated[
        bool, typer.Option("--paths", help="Print paths only, one a line, at most 20 of an image.")
    ] = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="With --paths: end each with NUL, not a line break.")
    ] = False,
    sheet: Annotated[Path | None, typer.Option(metavar="OUT.png", help="Draw query and hits as one picture.")] = None,
    as_json: Json = False,
) -> None:
    """Find the indexed images nearest to a picture, or those that show what words say.

    Both may be mixed and weighed: "red bicycle::2 beach --no people", '2:photo.jpg + "snow" - id:3fa9',
    "--style ref.jpg --sw 300". What is a file, ends as a picture's name does, or holds a `/`, is a picture. A prompt
    that is one word and begins with `-` goes behind `--`.
    """
    from pydantic import ValidationError

    from api.ask import Asked, ask_index, ask_server, draw, pictures_of_index, pictures_of_server
    from api.http.access import key_to_send
    from api.serving.questions import SearchOptions
    from indexer.pictures.sheet import is_drawable
    from search.catalog.hits import HIT_PATHS
    from search.errors import PromptInvalid
    from search.filters import parse_short
    from search.query.prompt import caret, read_prompt

    if (asks is None) == (id is None):
        raise typer.BadParameter(
            "Name one picture, words, or --id of an indexed picture, and not two of them.", param_hint="IMAGE|WORDS"
        )
    try:
        image, text, prompt = Meant() if asks is None else meant(asks)
    except PromptInvalid as error:
        _fail(f"{error.message}\n{caret(asks or '', error.position)}", error.exit_code)
    if box is not None and image is None:
        raise typer.BadParameter("Only a picture can have a box.", param_hint="--box")
    if null and not paths:
        raise typer.BadParameter("-0 ends paths: add --paths.", param_hint="--null")
    if combine not in ("sum", "best"):
        raise typer.BadParameter("sum or best.", param_hint="--combine")
    if turns and image is None and prompt is None:
        raise typer.BadParameter("Only a picture can be turned.", param_hint="--turns")
    if rerank and image is None and id is None:
        raise typer.BadParameter("It takes one picture, or --id, in a space of regions.", param_hint="--rerank")
    if sheet is not None and not (sheet.parent.is_dir() and is_drawable(sheet)):
        raise typer.BadParameter("Name a .png or .jpg file in a folder that is there.", param_hint="--sheet")
    if index is not None and server is not None:
        raise typer.BadParameter("Ask either an index or a server.", param_hint="--server")
    chosen = None if filter is None else parse_short(filter)
    try:
        options = SearchOptions(
            k=k,
            min_score=min_score,
            max_fmr=_share(max_fmr),
            filter=chosen,
            space=space,
            fold=fold,
            turns=turns,
            rerank=rerank,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(f"{first['msg']}.", param_hint=str(first["loc"][0])) from error
    asked = Asked(
        image=image,
        text=text,
        id=None if id is None else checked_id(id),
        prompt=prompt,
        combine="best" if combine == "best" else "sum",
        box=None if box is None else numbers(box),
        options=options,
    )
    if prompt is not None and read_prompt(prompt).only_pushes_away:
        warn(
            "The prompt says only what is not wanted: its hits are what is least like that. Say what to look for too, "
            "before it: lookalike search 'red bicycle --no people'. All words behind --no are pushed away."
        )
    api_key = None if api_key is None else key_to_send(api_key)

    def answer_to(question: Asked) -> dict[str, Any]:
        if server is not None:
            return ask_server(server, api_key, question)
        return ask_index(index or default_index(), question, warn=warn)

    try:
        answer = answer_to(asked)
    except PromptInvalid as error:
        _fail(f"{error.message}\n{caret(asks or '', error.position)}", error.exit_code)
    if as_json:
        print_json(answer)
    elif paths:
        print_paths((path for hit in answer["hits"] for path in hit["paths"]), end="\0" if null else "\n")
        if hidden := sum(hit["path_count"] - len(hit["paths"]) for hit in answer["hits"]):
            warn(f"{plural(hidden, 'more path')} of these images not printed: of each, the first {HIT_PATHS} are")
    else:
        print_hits(answer)
    cut = options.max_fmr is not None and min_score is None and not fold and text is None
    if cut and not answer["hits"] and chosen is not None:
        uncut = options.model_copy(update={"max_fmr": None, "k": 1})
        if answer_to(replace(asked, options=uncut))["hits"]:
            warn(
                f"Images match the filter, but --max-fmr {max_fmr} leaves all of them out: random images reach their "
                "scores too often. --max-fmr 1 shows them."
            )
    elif cut and len(answer["hits"]) < k and all(hit["fmr"] is not None for hit in answer["hits"]):
        matching = "Matching images" if filter else "Images"
        warn(f"{matching} whose score random ones reach too often, if any, are left out. --max-fmr 1 shows them.")
    if sheet is not None:
        pictures = pictures_of_server(server, api_key) if server else pictures_of_index(index or default_index())
        with pictures as fetch:
            draw(asked, answer, sheet, fetch)


def _share(text: str) -> Any:
    """What --max-fmr means; 1 is no limit, which is not sent: every server and every query takes that."""
    from search.types import AUTO  # imports numpy: not for --help

    with suppress(ValueError):
        if text == AUTO:
            return AUTO
        if 0 < float(text) <= 1:
            return None if float(text) == 1 else float(text)
    raise typer.BadParameter("A share above 0, such as 0.001; 1 for all; or auto.", param_hint="--max-fmr")


search.cli.register(app.command)
app.command("teach")(teach)
app.command("explain")(explain)
api.boards_cli.register(app.command)


@app.command()
def serve(
    directories: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", default_factory=lambda: [default_index()], show_default=DEFAULT_INDEX),
    ],
    host: Annotated[str | None, typer.Option(help="[default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free one. [default: 8000]")] = None,
    api_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Answer only requests with it. read:KEY may only read.")
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Several keys, one a line.")] = None,
    log_format: Annotated[str | None, typer.Option(metavar="text|json", help="[default: text]")] = None,
) -> None:
    """Serve indexes over HTTP, with a web page. The first is the default one."""
    from api.http.server import run
    from api.settings import read_settings

    settings = read_settings(host=host, port=port, api_key=api_key, api_key_file=api_key_file, log_format=log_format)
    run(directories, settings, announce=say)


def main() -> NoReturn:
    """Run the command line: every error a user can cause is one clear line and an exit code."""
    _use_utf8()
    prepare_streams()
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except USAGE_ERROR as error:
        error.message = "\n".join(map(escaped, error.message.split("\n")))
        error.show()
        sys.exit(error.exit_code)
    except (SearchError, IndexerError, AnalysisError, ApiError) as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone: nobody to tell
        sys.exit(0)
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", EXIT_IO)
    except Exception as error:
        if os.environ.get("LOOKALIKE_DEBUG"):
            raise
        _fail(f"internal error ({type(error).__name__}: {error}). LOOKALIKE_DEBUG=1 shows where.", EXIT_INTERNAL)


def _use_utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale is of another encoding: the catalog's names are UTF-8."""
    if os.name == "posix" and sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)  # what is printed stays in the locale's
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def _fail(message: str, code: int) -> NoReturn:
    for line in f"lookalike: {message}".split("\n"):
        warn(line)
    sys.exit(code)
