"""Backends that run a vision transformer. The only modules that import torch, or OpenVINO."""

import sys
from typing import Any, cast

# With this module, OpenVINO tells its maker over the network who imports it and what is converted; without, nobody.
# (Where a program of somebody else has imported it before ours, it is that program's choice.)
cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)
