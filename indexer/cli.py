"""Commands that bring images into an index: build and models; spaces is in `spaces_cli`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from indexer import spaces_cli
from indexer.shown import SHOWN_PATHS, print_report
from indexer.terminal import EXIT_INTERRUPTED, graceful_interrupt, requests
from search.console import DEFAULT_INDEX, EXIT_REJECTED, Json, default_index, print_json, warn
from search.recipe import Pooling

if TYPE_CHECKING:
    from indexer.folders import Choice
    from indexer.report import BuildReport
    from search.index import Index

BackendName = Literal["auto", "torch", "openvino"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16", "int8"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]


def build(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Folders or files.", default_factory=list, show_default=False),
    ],
    index: Annotated[
        Path, typer.Option(metavar="DIR", help="The index.", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    model: Annotated[str | None, typer.Option(metavar="NAME|HF-ID|PATH", help="See: lookalike models.")] = None,
    layer: Annotated[
        list[str] | None, typer.Option(metavar="N[,N...]", help="Layers of one space; repeat for several spaces.")
    ] = None,
    pooling: Annotated[Pooling | None, typer.Option(help="How a layer becomes one vector.")] = None,
    final_norm: Annotated[
        bool | None, typer.Option("--final-norm/--no-final-norm", help="The default: at the last layer only.")
    ] = None,
    style: Annotated[bool, typer.Option("--style", help="Also a space in which styles are compared.")] = False,
    regions: Annotated[bool, typer.Option("--regions", help="Also a space of parts of images.")] = False,
    pad: Annotated[bool, typer.Option("--pad", help="Fit the whole image in, instead of the model's crop.")] = False,
    backend: Annotated[BackendName, typer.Option(help="Program that runs the model of a new index.")] = "auto",
    precision: Annotated[PrecisionName, typer.Option(help="Arithmetic of a new index.")] = "auto",
    min_overlap: Annotated[
        float, typer.Option(min=0, max=1, metavar="F", help="Share of fp32's ten nearest that int8 must keep.")
    ] = 0.93,
    min_recall: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="F", help="Share of the true ten nearest that searches must find.  [0.95]"),
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="Where the model runs.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, max=4096, metavar="N")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, metavar="N", help="Decoding processes.")] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="The largest picture in memory.  [250,000,000]", show_default=False),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="S", help="Seconds for a picture; each megapixel adds a tenth.  [10]"),
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Names or paths to leave out.")] = None,
    all_folders: Annotated[
        bool, typer.Option("--all-folders", help="Also enter folders of thumbnails, trash and snapshots.")
    ] = False,
    follow_links: Annotated[bool, typer.Option("--follow-links", help="Enter links to folders.")] = False,
    files_from: Annotated[str | None, typer.Option(metavar="FILE|-", help="Paths to add, one a line.")] = None,
    null: Annotated[bool, typer.Option("--null", "-0", help="With --files-from: paths end with NUL.")] = False,
    label_from_folder: Annotated[
        bool, typer.Option("--label-from-folder", help="Label by folder below SOURCE.")
    ] = False,
    metadata: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV or JSONL: path or id, labels, ...")] = None,
    replace_labels: Annotated[
        bool, typer.Option("--replace-labels", help="Images that --metadata names keep no other labels.")
    ] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Drop images whose files are gone or excluded.")] = False,
    prune_all: Annotated[
        bool, typer.Option("--prune-all", help="Also where a drive may not be connected; implies --prune.")
    ] = False,
    reread: Annotated[bool, typer.Option("--reread", help="Read all files, also of known size and time.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try rejected files again.")] = False,
    readd: Annotated[bool, typer.Option("--readd", help="Take files back that `remove` removed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Build an index of folders of images, or bring one up to date."""
    from indexer.build import Build
    from indexer.choice import ModelChoice, open_for_build
    from indexer.folders import Choice
    from indexer.machine import cores
    from indexer.metadata import read_metadata
    from indexer.progress import progress_bar
    from indexer.report import BuildOptions
    from indexer.sources import resolve_sources

    began = time.perf_counter()
    if replace_labels and not metadata:
        raise typer.BadParameter("It takes labels from a file: add --metadata.", param_hint="--replace-labels")
    if null and not files_from:
        raise typer.BadParameter("-0 says how a list ends its paths: add --files-from.", param_hint="--null")
    listed = _read_list(files_from, null=null) if files_from else []
    if not sources and not listed:
        raise typer.BadParameter("Name a folder of images: lookalike build PHOTOS", param_hint="SOURCE")
    choice = Choice(exclude=tuple(exclude or ()), all_folders=all_folders, follow_links=follow_links)
    options = BuildOptions(
        workers=workers or max(2, cores()),
        choice=choice,
        label_from_folder=label_from_folder,
        annotations=tuple(read_metadata(metadata)) if metadata else (),
        replace_labels=replace_labels,
        prune=prune or prune_all,
        prune_all=prune_all,
        reread=reread,
        retry_failed=retry_failed,
        readd=readd,
        min_recall=min_recall,
        max_pixels=max_pixels,
        max_seconds=max_seconds,
    )
    wanted = ModelChoice(
        model=model,
        spaces=requests(layer or [], pooling, final_norm),
        pad=pad,
        backend=backend,
        precision=precision,
        min_overlap=min_overlap,
        device=device,
        batch_size=batch_size,
        style=style,
        regions=regions,
    )
    resolve_sources(sources, listed, ())  # a missing folder is told at once, not after the model is loaded
    _check_place(index, sources)
    if dry_run and not (index / "catalog.sqlite").exists():
        _foresee(index, sources, listed, choice, as_json)
        return
    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar())  # first: loading a model takes seconds
        # before anything native is loaded, which does not bear a KeyboardInterrupt
        stopped = stack.enter_context(graceful_interrupt())
        opened, writer, encoder = open_for_build(stack, index, wanted, dry_run=dry_run, warn=warn)
        known_roots = [root for root in opened.catalog.roots() if root != str(opened.uploads)]
        report = Build(opened, writer, encoder, options, progress, stopped, began).run(
            resolve_sources(sources, listed, known_roots)
        )
        answer = _answer(opened, report)
    if as_json:
        print_json(answer)
    else:
        print_report(report, answer, dry_run=dry_run)
    if report.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if report.failed:
        raise typer.Exit(EXIT_REJECTED)


def _check_place(index: Path, sources: Sequence[Path]) -> None:
    """Say at once, not after a model is loaded, that the index cannot be there."""
    from search.files import check_path

    check_path(index)
    if index.exists() and not index.is_dir():
        raise typer.BadParameter(f"{index} is a file. Name a folder for the index.", param_hint="--index")
    for source in sources:
        if source.is_dir() and index.resolve() == source.resolve():
            raise typer.BadParameter(
                f"{index} is the folder of pictures. The index needs one of its own: --index {index.name}.index",
                param_hint="--index",
            )


def _read_list(name: str, *, null: bool) -> list[Path]:
    from indexer.errors import ListInvalid
    from indexer.lists import read_list

    try:
        return read_list(sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes(), null=null)
    except (OSError, ListInvalid) as error:
        reason = getattr(error, "strerror", None) or error
        raise typer.BadParameter(f"{name} cannot be read: {reason}.", param_hint="--files-from") from error


def _foresee(index: Path, sources: Sequence[Path], listed: Sequence[Path], choice: Choice, as_json: bool) -> None:
    """The dry run of a build that has no index yet: every image file would be added."""
    from indexer.folders import scan
    from indexer.omissions import EMPTY
    from indexer.report import BuildReport
    from indexer.sources import resolve_sources
    from search.types import Failure, Location

    report = BuildReport()
    for source in resolve_sources(sources, listed, ()):
        for entry in scan(source, choice):
            if isinstance(entry, Location) and not entry.size:
                entry = Failure(**asdict(entry), reason=EMPTY)
            report.added += isinstance(entry, Location)
            report.pass_over(entry)
    answer = _counters(str(index), report)
    if as_json:
        print_json(answer)
    else:
        print_report(report, answer, dry_run=True)
    if report.failed:
        raise typer.Exit(EXIT_REJECTED)


def _answer(index: Index, report: BuildReport) -> dict[str, Any]:
    spaces = [
        {
            "name": entry.space.name,
            "dim": entry.space.recipe.dim,
            "count": entry.count,
            "complete": entry.space.complete,
            "encoding": asdict(entry.space.encoding),
        }
        for entry in index.catalog.space_infos()
    ]
    return {**_counters(str(index.path), report), "spaces": spaces}


def _counters(index: str, report: BuildReport) -> dict[str, Any]:
    names = ("added", "updated", "moved", "unchanged", "missing", "removed", "ignored", "embedded", "filled")
    rounded = ("seconds", "startup_seconds", "publish_seconds", "images_per_second")
    return {
        "index": index,
        **{name: getattr(report, name) for name in names},
        "unsupported": dict(sorted(report.unsupported.items(), key=lambda counted: (-counted[1], counted[0]))),
        "cropped": report.cropped,
        "left_out": [
            {"name": rule.shown, "why": rule.why, "count": len(paths), "paths": paths[:SHOWN_PATHS]}
            for rule, paths in report.left_out.items()
        ],
        "linked_folders": report.linked_folders,
        "incomplete": [
            {"path": found.location.absolute, "missing": round(found.missing, 2)} for found in report.incomplete
        ],
        "failed": [{"path": str(Path(failed.root, failed.path)), "reason": failed.reason} for failed in report.failed],
        "spaces": [],
        **{name: round(getattr(report, name), 3) for name in rounded},
    }


def models(as_json: Json = False) -> None:
    """List the models that are known by name; any Hugging Face id or checkpoint folder works too."""
    from indexer.models import REGISTRY

    if as_json:
        print_json({"models": [asdict(card) for card in REGISTRY]})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "source", "licence", "parameters", "dim", "input", "layers", "recommended"):
        table.add_column(heading, justify="right" if heading in ("parameters", "dim", "input", "layers") else "left")
    for card in REGISTRY:
        table.add_row(
            card.name,
            card.source,
            card.licence,
            f"{card.parameters / 1e6:.0f} M",
            str(card.dim),
            f"{card.input_size} px",
            str(card.layers),
            f"layer {card.recommended_layer}, {card.recommended_pooling}",
        )
    Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200).print(table)


def register(add: Callable[..., Any]) -> None:
    """Add this room's commands to the application."""
    add("build")(build)
    add("models")(models)
    spaces_cli.register(add)
