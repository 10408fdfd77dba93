"""What this processor's arithmetic allows, and where the encoder's time goes.

    python benchmarks/ceiling.py [--layer 12]

The peak is torch's best product of two square matrices, on all cores, in each precision. From the operations that
one image costs follows how many images a second would be all that the processor can do; the encoder (OpenVINO, a
stream a core) is put beside it, with the share of each kind of operation.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from embedding import SAMPLE, pictures
from machine import machine
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from indexer.encoders import int8
from indexer.encoders import openvino_backend as ours
from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.families import open_checkpoint
from indexer.encoders.recipes import recipes_for
from indexer.encoders.taps import all_taps
from indexer.encoders.tower import open_tower
from indexer.models import PACKAGED, locate

SIDES = (1024, 2048, 4096)
ROUNDS = 20
IMAGES = 64


def peak(left: torch.Tensor, right: torch.Tensor, product: Callable[..., Any]) -> float:
    """Operations a second of the best of some products of two square matrices, and of parts of them."""
    best = 0.0
    for side in SIDES:
        one, other = left[:side, :side].contiguous(), right[:side, :side].contiguous()
        for _ in range(ROUNDS):
            began = time.perf_counter()
            product(one, other)
            best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best


def peaks() -> dict[str, float]:
    """Operations a second in each precision."""
    floats = torch.randn(max(SIDES), max(SIDES))
    whole = torch.randint(-127, 128, floats.shape, dtype=torch.int8)
    return {
        "fp32": peak(floats, floats, torch.matmul),
        "bf16": peak(floats.bfloat16(), floats.bfloat16(), torch.matmul),
        "int8": peak(whole, whole, torch._int_mm),
    }


def shares(model: Any, precision: str, pixels: np.ndarray[Any, Any]) -> dict[str, float]:
    """How much of one core's time each kind of operation takes. model: an openvino.Model."""
    import openvino  # after ours, which keeps it from reporting to its maker

    options = {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": ours.GROUP if precision == "int8" else 0,
        "INFERENCE_NUM_THREADS": 1,
        "PERF_COUNT": True,
    }
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    spent: Counter[str] = Counter()
    for _ in range(ROUNDS):
        request.infer({0: pixels[: ours.STREAM_BATCH]})
        for operation in request.profiling_info:
            spent[operation.node_type] += operation.real_time.total_seconds()
    return {name: seconds / spent.total() for name, seconds in spent.most_common(4)}


def main() -> None:
    """Peaks first, then the encoder in each precision beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", type=int, default=PACKAGED.layers)
    layer = parser.parse_args().layer
    files = locate(PACKAGED.name)
    spaces = recipes_for(files, [SpaceRequest(layers=(layer,))])
    (recipe,), taps = spaces.values(), all_taps(spaces.values())
    pixels = pictures(SAMPLE, recipe, 1)[0][:IMAGES]

    def tower() -> Any:
        return open_tower(open_checkpoint(files), taps, recipe.preprocessing)

    whole = tower()
    # as plain products: what attention costs is not counted otherwise
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        whole(torch.from_numpy(pixels[:1]))
    cost = counter.get_total_flops()
    print(machine())
    print(f"layer {layer}: {cost / 1e9:.1f} GFLOP an image\n")
    print(
        "| | peak, GFLOP/s | images/s at that | encoder, images/s | | where its time goes |\n|---|---|---|---|---|---|"
    )
    models = {name: ours.exported(files, taps, recipe.preprocessing) for name in ("fp32", "bf16")}
    models["int8"] = int8.quantise(tower(), taps, pixels)
    for name, most in peaks().items():
        precision: Any = name
        encoder = ours.OpenVinoEncoder(models[name].clone(), spaces, precision=precision, throughput=True)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            encoder.encode(pixels)
            times.append(time.perf_counter() - began)
        rate = len(pixels) / min(times)
        where = ", ".join(f"{kind} {share:.0%}" for kind, share in shares(models[name], name, pixels).items())
        print(f"| {name} | {most / 1e9:.0f} | {most / cost:.1f} | {rate:.1f} | {rate * cost / most:.0%} | {where} |")


if __name__ == "__main__":
    main()
