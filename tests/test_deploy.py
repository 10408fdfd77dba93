"""Promises to those who run a server in a container or a cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Server

from api.settings import read_settings

ROOT = Path(__file__).parents[1]


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
