"""Commands that need no encoder: info, verify, rebuild, compact, remove, backup, move-root."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.console import (
    DEFAULT_INDEX,
    EXIT_REJECTED,
    Json,
    default_index,
    file_size,
    plural,
    print_json,
    say,
    warn,
)
from search.errors import IndexDamaged
from search.list_cli import list_images
from search.lock import PATIENCE
from search.names import is_text

if TYPE_CHECKING:
    from search.catalog.lookup import KnownLocation, Lookup
    from search.index import Index
    from search.types import JsonObject, Location


def info(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    as_json: Json = False,
) -> None:
    """Show what an index holds."""
    with _open(directory) as index:
        facts = index.info()
        size = index.bytes_on_disk()
    spaces = [
        {
            "name": entry.space.name,
            "dim": entry.space.recipe.dim,
            "count": entry.count,
            "complete": entry.space.complete,
            "default": entry.default,
            "encoding": vars(entry.space.encoding),
            **entry.structure,
            "recipe": entry.space.recipe.to_json(),
        }
        for entry in facts.spaces
    ]
    if as_json:
        print_json({**vars(facts), "bytes_on_disk": size, "spaces": spaces})
        return
    say(f"{facts.path}: {facts.images:,} images in {facts.locations:,} files, {file_size(size)}")
    for entry in facts.spaces:
        recipe, encoding = entry.space.recipe, entry.space.encoding
        say(
            f"  {entry.space.name}: {entry.count:,} embeddings of {recipe.dim} numbers, "
            f"{recipe.model}, {recipe.pooling}, {recipe.preprocessing.size} px, {encoding.backend} {encoding.precision}"
        )
        if not entry.space.complete:
            say(f"    not complete: {entry.images - entry.count:,} images have no vector in it")
        if entry.structure:
            say(f"    {_searched(entry.structure)}")
    say(f"  generation {facts.generation or 'none'}, {facts.delta:,} images newer than it")
    if facts.current != facts.generation:
        warn(
            f"The generation {facts.current} is damaged or gone: write another one with lookalike rebuild {directory}."
        )
    if facts.failures:
        say(f"  {facts.failures:,} files could not be indexed; the next build lists them")


def _searched(structure: JsonObject) -> str:
    """How a space is searched, in words."""
    size = f"{structure['bytes_per_vector']:,.0f} bytes a vector, written in {structure['build_seconds']:.1f} s"
    if structure["structure"] == "exact":
        return f"searched exactly, {size}"
    found = structure["search"]
    worst = f", {found['recall_worst_tenth']:.0%} in the worst tenth" if "recall_worst_tenth" in found else ""
    return (
        f"searched by a graph that finds {found['recall']:.1%} of the ten nearest{worst} "
        f"({found['queries']} of its images asked, ef {found['ef']}), {size}"
    )


def verify(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    as_json: Json = False,
) -> None:
    """Prove an index: read all of it, and say what is wrong and what to do. Exit code 65 if anything is."""
    from search.upkeep.verify import verify as check  # imports faiss and sqlalchemy: not for --help

    with _open(directory, unchecked=True) as index:
        result = check(index)
    if as_json:
        told = {name: [vars(one) for one in getattr(result, name)] for name in ("findings", "remarks")}
        print_json({"index": str(directory), **vars(result), **told})
    else:
        say(f"{directory}: {plural(result.images, 'image')}, {plural(result.vectors, 'vector')} read")
        for space, share in result.recall.items():
            say(f"  {space}: the graph finds {share:.1%} of the ten nearest")
        for finding in (*result.findings, *result.remarks):
            warn(f"{finding.problem}. {finding.advice}")
        if not result.findings:
            say("  everything is as it was stored")
    if result.findings:
        raise typer.Exit(IndexDamaged.exit_code)


def rebuild(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    as_json: Json = False,
) -> None:
    """Write an index's search structures again from its catalog, without removed images. No image is read."""
    with _open(directory, writable=True) as index:
        generation = index.publish(anew=True)
        with index.writer(timeout=PATIENCE) as writer:
            writer.rewrite_words()
        count = index.catalog.counts()[0]
    if as_json:
        print_json({"index": str(directory), "generation": generation, "count": count})
    else:
        say(f"{directory}: generation {generation} holds {plural(count, 'image')}.")


def compact(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    as_json: Json = False,
) -> None:
    """Give back the room of removed images: write search structures and catalog again. No image is read."""
    with _open(directory, writable=True) as index:
        before = index.bytes_on_disk()
        index.compact()
        after = index.bytes_on_disk()
    if as_json:
        print_json({"index": str(directory), "bytes_before": before, "bytes_on_disk": after})
    else:
        say(f"{directory}: {file_size(before)} before, {file_size(after)} now.")


def backup(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The index.")],
    to: Annotated[Path, typer.Argument(metavar="TO", help="A new folder.")],
    as_json: Json = False,
) -> None:
    """Copy an index, also while it is served: its catalog, its uploads, and what it needs to be searched."""
    from search.upkeep.backup import backup as copy  # imports faiss and sqlalchemy: not for --help

    with _open(directory) as index, copy(index, to) as copied:
        count, size = copied.catalog.counts()[0], copied.bytes_on_disk()
    if as_json:
        print_json({"index": str(directory), "backup": str(to), "count": count, "bytes_on_disk": size})
    else:
        say(f"{to}: {plural(count, 'image')}, {file_size(size)}.")


def move_root(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The index.")],
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Where the pictures were.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Where they are now.")],
    as_json: Json = False,
) -> None:
    """Tell an index that a folder of pictures is somewhere else now. No picture is read."""

    from search.upkeep import roots  # imports sqlalchemy: not for --help

    if not new.is_dir():
        raise typer.BadParameter(f"There is no folder {new}. Mount the drive, or name the folder as it is called now.")
    with _open(directory, writable=True) as index, index.writer() as writer:
        moved = roots.move_root(writer, old, new)
    if as_json:
        print_json({"index": str(directory), "roots": moved})
    else:
        say(f"{directory}: its pictures are now under {', '.join(moved)}.")


def forget_root(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The index.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that is gone for good.")],
    as_json: Json = False,
) -> None:
    """Forget the pictures of a folder that is gone for good. The same pictures elsewhere are taken as new ones."""
    from search.upkeep import roots  # imports sqlalchemy: not for --help

    with _open(directory, writable=True) as index:
        images = index.catalog.counts()[0]
        with index.writer() as writer:
            files = roots.forget_root(writer, folder)
        images -= index.catalog.counts()[0]
    if as_json:
        print_json({"index": str(directory), "files": files, "removed": images})
    else:
        say(f"{directory}: forgot {plural(files, 'file')}; {plural(images, 'image')} had no other.")


def remove(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The index.")],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="ID|PATH...",
            help="Ids, or files as the index knows them.",
            default_factory=list,
            show_default=False,
        ),
    ],
    erase: Annotated[
        bool,
        typer.Option(
            "--erase",
            help="Also forget the paths: only the content hash is kept. Works on PATHs removed before, too.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove images, with all copies of them, from an index; builds leave them out (until --readd). The files stay."""
    if directory.is_file() or (not images and not (directory / "catalog.sqlite").exists()):
        raise typer.BadParameter(f"Name the index first: lookalike remove {default_index()} {directory}")
    if not images:
        raise typer.BadParameter(f"Name images by their path or id: lookalike remove {directory} ID|PATH")
    with _open(directory, writable=True) as index:
        with index.writer() as writer:
            found = {name: _resolve(index, name) for name in images}
            barred = {name: _barred(index, name) if erase else [] for name in images}
            if erase:
                _strike(index, images)
            files = index.catalog.counts()[1]
            removed = writer.remove(dict.fromkeys(image_id for image_id in found.values() if image_id), erase=erase)
            files -= index.catalog.counts()[1]
            erased = {location for locations in barred.values() for location in locations}
            if erase:
                with writer.transaction() as transaction:
                    for location in erased:
                        transaction.forget_path(location)
                    for name in images:  # also the id of an image that was removed before
                        transaction.forget_mentions(name.lower())
        if erase:
            index.compact()
        unknown = [name for name, image_id in found.items() if image_id is None and not barred[name]]
        before = [name for name in unknown if _was_removed(index, name)]
    if as_json:
        print_json({"index": str(directory), "removed": removed, "erased_paths": len(erased), "unknown": unknown})
    else:
        parts = [plural(removed, "image")]
        parts += [f"which {files:,} files show"] if files > removed else []
        parts += [f"and {plural(len(erased), 'path')} of what was removed before"] if erased else []
        say(f"Removed {', '.join(parts)}{',' if len(parts) > 1 else ''} from {directory}.")
    for name in images if erase else ():
        if Path(name).is_file():
            warn(f"still on the disk: {name}. A build would note its path again: delete the file before that")
    for name in unknown:
        hint = " (removed before: to erase the paths that it had, name them)" if name in before else ""
        warn(f"not in the index: {name}{hint}")
    if unknown:
        raise typer.Exit(EXIT_REJECTED)


def _resolve(index: Index, name: str) -> str | None:
    """The id of an image named by its id or by the path of one of its files."""
    from search.catalog.typed import named_image  # imports sqlalchemy: not for --help

    with index.catalog.lookup() as lookup:
        return named_image(lookup, index.catalog.roots(), name)


def _strike(index: Index, names: Sequence[str]) -> None:
    """Forget images in the journals of runs over duplicates, by ids or paths that the index may not know any more; and
    in groups, all that the index does not know."""
    from search.journal import FOLDER, GROUPS, strike, strike_groups

    paths = set()
    for path in (Path(name) for name in names if "\0" not in name):
        paths.add(str(path.absolute()))
        with suppress(OSError, RuntimeError):  # links in a circle, a path that is too long
            paths.add(str(path.resolve()))
    ids = {name.lower() for name in names}
    strike(index.path / FOLDER, ids, paths)
    strike_groups(index.path / GROUPS, ids, index.catalog.rowids)


def _barred(index: Index, name: str) -> list[Location]:
    """Where the index knows a file whose content was removed before."""
    with index.catalog.lookup() as lookup:
        return [known.location for known in _seen(index, lookup, name) if known.image_id is None]


def _was_removed(index: Index, name: str) -> bool:
    """Whether this is the id of an image that was removed: nothing leads from it to the paths that it had."""
    with index.catalog.lookup() as lookup:
        return is_text(name) and lookup.content(name.lower()).barred


def _seen(index: Index, lookup: Lookup, name: str) -> Iterator[KnownLocation]:
    """Locations of a file, by the name given and by its target if it is a link."""
    from search.catalog.typed import TypedPaths  # imports sqlalchemy: not for --help

    return TypedPaths(lookup, index.catalog.roots()).find(name)


def _open(directory: Path, *, writable: bool = False, unchecked: bool = False) -> Index:
    from search.index import Index  # imports faiss and sqlalchemy: not for --help

    return Index.open(directory, writable=writable, unchecked=unchecked)


def register(add: Callable[..., Any]) -> None:
    """Add this room's commands to the application."""
    add("info")(info)
    add("list")(list_images)
    add("rebuild")(rebuild)
    add("verify")(verify)
    add("compact")(compact)
    add("remove")(remove)
    add("backup")(backup)
    add("move-root")(move_root)
    add("forget-root")(forget_root)
