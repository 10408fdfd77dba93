"""What a benchmark ran on: one line for its output."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """Processor, its family and model (the name alone does not tell a Zen 4 from a Zen 5), cores, Python."""
    facts = dict.fromkeys(("model name", "cpu family", "model"), "?")
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in facts:
                facts[key.strip()] = value.strip()
    except OSError:  # not Linux
        facts["model name"] = platform.processor()
    name, family, model = facts.values()
    return f"{name} (family {family}, model {model}), {os.cpu_count()} cores, Python {platform.python_version()}"
