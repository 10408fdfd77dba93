"""What this machine offers: cores, and the OpenVINO extra."""

from __future__ import annotations

import math
import os
from importlib.util import find_spec
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of processor time allowed in each period of so many microseconds: what `docker --cpus` or a limit of
Kubernetes becomes."""


def cores() -> int:
    """Those that this process may use: in a container, or under taskset, not all of the machine's."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_MAX.read_text().split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # not Linux, an older one, or "max"
        return count


def has_openvino() -> bool:
    """Whether the extra is installed; without importing it."""
    return find_spec("openvino") is not None
