"""The points of a map as a table in Parquet, as Embedding Atlas and dataframes read it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.errors import MapUnavailable, ReportFailed
from analysis.maps.map import Map
from search.files import write_whole
from search.types import ImageRecord

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    raise MapUnavailable("Parquet needs a package that is not installed: pip install 'lookalike[map]'") from error


def write_parquet(made: Map, images: Mapping[str, ImageRecord], out: Path) -> None:
    """Write a row for each point. Raises ReportFailed where the file cannot be written.

    Columns: `x`, `y`, `id`, `path`, `cluster` (its number), `cluster_name`, `isolation`, `outlier`, `labels` (a list),
    `width`, `height`, `taken_at`. images: those of the map by id.
    """
    rows = [(point, images[point.id]) for point in made.points]
    outliers = set(made.outliers)
    table = pyarrow.table(
        {
            "x": pyarrow.array([point.x for point, _ in rows], pyarrow.float32()),
            "y": pyarrow.array([point.y for point, _ in rows], pyarrow.float32()),
            "id": pyarrow.array([point.id for point, _ in rows], pyarrow.string()),
            "path": pyarrow.array([_text(record.paths) for _, record in rows], pyarrow.string()),
            "cluster": pyarrow.array([point.cluster for point, _ in rows], pyarrow.int32()),
            "cluster_name": pyarrow.array(
                [None if point.cluster is None else made.clusters[point.cluster].name for point, _ in rows],
                pyarrow.string(),
            ),
            "isolation": pyarrow.array([point.isolation for point, _ in rows], pyarrow.float32()),
            "outlier": pyarrow.array([point.id in outliers for point, _ in rows], pyarrow.bool_()),
            "labels": pyarrow.array([record.labels for _, record in rows], pyarrow.list_(pyarrow.string())),
            "width": pyarrow.array([record.facts.width for _, record in rows], pyarrow.int32()),
            "height": pyarrow.array([record.facts.height for _, record in rows], pyarrow.int32()),
            "taken_at": pyarrow.array([record.facts.taken_at for _, record in rows], pyarrow.string()),
        }
    )
    data = io.BytesIO()
    pyarrow.parquet.write_table(table, data)
    try:
        write_whole(out, data.getvalue(), durable=False)
    except OSError as error:
        raise ReportFailed(
            f"The table {out} cannot be written: {error.strerror or error}. Name another file, such as map.parquet."
        ) from error


def _text(paths: Sequence[str]) -> str | None:
    """The first path as a string that Parquet holds, also where its bytes are not UTF-8."""
    return paths[0].encode("utf-8", "replace").decode() if paths else None
