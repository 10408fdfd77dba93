"""The points of a map as a table in Parquet, as Embedding Atlas and dataframes read it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from analysis.errors import MapUnavailable, ReportFailed
from analysis.labels import records
from analysis.maps.map import Map
from search.files import write_whole
from search.index import Index

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    raise MapUnavailable("Parquet needs a package that is not installed: pip install 'lookalike[map]'") from error


def write_parquet(index: Index, made: Map, paths: Mapping[str, str], out: Path) -> None:
    """Write a row for each point. Raises ReportFailed where the file cannot be written.

    Columns: `x`, `y`, `id`, `path`, `cluster` (its number), `cluster_name`, `isolation`, `outlier`, `labels` (a list),
    `width`, `height`, `taken_at`. paths: by id.
    """
    known = {record.id: record for record in records(index)}
    rows = []
    for point in made.points:
        record = known.get(point.id)
        if record is not None:  # else it was removed meanwhile
            rows.append((point, record))
    outliers = set(made.outliers)
    table = pyarrow.table(
        {
            "x": pyarrow.array([point.x for point, _ in rows], pyarrow.float32()),
            "y": pyarrow.array([point.y for point, _ in rows], pyarrow.float32()),
            "id": pyarrow.array([point.id for point, _ in rows], pyarrow.string()),
            "path": pyarrow.array([_text(paths.get(point.id)) for point, _ in rows], pyarrow.string()),
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


def _text(path: str | None) -> str | None:
    """A path whose bytes are not UTF-8 as a string that Parquet holds."""
    return None if path is None else path.encode("utf-8", "replace").decode()
