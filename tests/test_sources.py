"""Promises about sources: a file has one root and one path, however it is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from indexer.sources import Source, resolve_sources


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder `real` with a picture, and a link to it from `photos`."""
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "a.png").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    return tmp_path


def listed(path: Path, *roots: Path) -> list[Source]:
    return resolve_sources([], [path], map(str, roots))


def test_a_listed_file_behind_a_link_lies_where_a_build_of_the_folder_finds_it(linked: Path) -> None:
    named, real = linked / "photos" / "link" / "a.png", linked / "real"
    assert listed(named) == listed(named, real) == [Source(root=real, paths=("a.png",))]
    assert listed(named, linked / "photos") == [Source(root=linked / "photos", paths=("link/a.png",))]


def test_a_listed_path_goes_up_as_the_system_goes_up(linked: Path) -> None:
    (linked / "b.png").touch()
    assert listed(linked / "photos" / "link" / ".." / "b.png") == [Source(root=linked, paths=("b.png",))]
    assert listed(linked / "photos" / "link" / "deep" / ".." / "a.png", linked / "photos") == [
        Source(root=linked / "real", paths=("a.png",))
    ]


def test_a_folder_or_nothing_in_a_list_gives_no_other_source_its_root(linked: Path) -> None:
    """With `/` in a list, everything would lie below `/` from then on."""
    real = linked / "real"
    for wrong in (real, linked, linked / "nothing.png", Path("/")):
        found = resolve_sources([real], [wrong, real / "a.png"], [])
        assert Source(root=real, named=("a.png",)) in found
        assert {source.root for source in found if source.paths is None} == {real}
        assert [source.paths for source in found if source.root != real and source.paths] in (
            [],
            [(wrong.name or ".",)],
        )


def test_a_folder_below_a_root_is_the_same_in_another_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Photos/Africa/2024", "photos/africa/2024", "photos/Africa/2024"):
        (tmp_path / name).mkdir(parents=True)  # one folder, on a disk that does not tell cases apart
    monkeypatch.setattr(Path, "samefile", lambda one, other: str(one).lower() == str(other).lower())
    for typed in ("photos/africa/2024", "photos/Africa/2024"):
        (source,) = resolve_sources([tmp_path / typed], [], [str(tmp_path / "Photos")])
        assert (source.root, source.prefix) == (tmp_path / "Photos", "Africa/2024/")


def test_a_long_list_is_resolved_in_proportion_to_its_length(tmp_path: Path) -> None:
    """By the calls that it takes: each file has a folder, and so a root, of its own."""
    calls: dict[int, int] = {}
    for count in (50, 200):
        names = [tmp_path / str(number) / "a.png" for number in range(count)]
        for name in names:
            name.parent.mkdir(exist_ok=True)
            name.touch()
        calls[count] = 0

        def counted(_frame: object, event: str, _argument: object, *, of: int = count) -> None:
            calls[of] += event in ("call", "c_call")

        sys.setprofile(counted)
        try:
            assert len(resolve_sources([], names, [])) == count
        finally:
            sys.setprofile(None)
    assert calls[200] <= 5 * calls[50]


def test_what_is_named_inside_a_source_is_a_part_of_it(tmp_path: Path) -> None:
    for folder in ("photos/.hidden/deep", "photos/2024", "other"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "photos" / "2024" / ".a.png").touch()
    named = [tmp_path / name for name in ("photos/.hidden/deep", "photos/.hidden", "photos", "other", "photos")]
    assert resolve_sources([*named, tmp_path / "photos" / "2024" / ".a.png"], [], []) == [
        Source(root=tmp_path / "photos", named=(".hidden/", ".hidden/deep/", "2024/.a.png")),
        Source(root=tmp_path / "other"),
    ]
