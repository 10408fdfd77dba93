"""Promises to those who run a server in a container or a cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import Server

from api.settings import read_settings
from indexer.packaged.dinov2 import DINOV2
from indexer.packaged.efficientnet import EFFICIENTNET

ROOT = Path(__file__).parents[1]


def test_the_container_gets_every_package_and_the_packaged_models() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    recipe = (ROOT / "Dockerfile").read_text()
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert [name for name in wanted if f"COPY {name} {name}\n" not in recipe or f"!{name}" not in sent] == []
    models = [package.install.split()[-1].partition("==")[0] for package in (DINOV2, EFFICIENTNET)]
    assert [name for name in models if name not in recipe or name not in (ROOT / "Makefile").read_text()] == []


@pytest.mark.parametrize("address", ["tcp://10.96.0.7:8000", "tcp://[fd00::7]:80"])
def test_a_cluster_service_of_the_same_name_changes_no_setting(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for name, value in {
        "LOOKALIKE_SERVICE_HOST": "10.96.0.7",
        "LOOKALIKE_SERVICE_PORT": "8000",
        "LOOKALIKE_SERVICE_PORT_HTTP": "8000",
        "LOOKALIKE_PORT": address,
        "LOOKALIKE_PORT_8000_TCP": address,
        "LOOKALIKE_PORT_8000_TCP_PROTO": "tcp",
        "LOOKALIKE_PORT_8000_TCP_PORT": "8000",
        "LOOKALIKE_PORT_8000_TCP_ADDR": "10.96.0.7",
    }.items():
        monkeypatch.setenv(name, value)
    assert read_settings().port == 8000
    assert read_settings(port=9000).port == 9000


def test_the_containers_health_check_asks_the_port_that_is_set(server: Server) -> None:
    command = re.search(r"HEALTHCHECK.*?CMD (\[.*?\])\n", (ROOT / "Dockerfile").read_text(), re.DOTALL)
    assert command is not None
    program, *arguments = json.loads(command[1])
    assert program == "python"
    port = server.url.rpartition(":")[2]

    def check(value: str) -> int:
        environment = {**os.environ, "LOOKALIKE_PORT": value}
        return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True).returncode

    assert check(port) == 0
    assert check("1") != 0  # nobody listens there
