"""This machine: how many cores it offers, and whether OpenVINO."""

from __future__ import annotations

import math
import os
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""The processor time allowed in each period, both in microseconds: `docker --cpus` or a limit of Kubernetes."""
OPENVINO_SYSTEMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64"))
"""Platforms and machines for which OpenVINO is published, as the marker of the extra in pyproject.toml has it."""


def cores() -> int:
    """The cores that this process may use: in a container, or under taskset, not all of the machine's."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_MAX.read_text().split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # not Linux, an older one, or "max"
        return count


def has_openvino() -> bool:
    """Tell whether OpenVINO is installed, without importing it."""
    return find_spec("openvino") is not None


def openvino_advice() -> str:
    """A sentence about how to get OpenVINO, or that there is none for this system."""
    if (sys.platform, platform.machine()) in OPENVINO_SYSTEMS:
        return "Install OpenVINO: pip install 'lookalike[openvino]'."
    return f"OpenVINO has no package for this system ({sys.platform}, {platform.machine()})."
