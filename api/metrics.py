"""The server's figures, as Prometheus reads them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REQUESTS = Histogram(
    "lookalike_request_seconds", "Requests from their headers to their answers", ["method", "route", "status"],
    buckets=SECONDS,
)  # fmt: skip
STAGES = Histogram(
    "lookalike_stage_seconds", "What a search spends in its stages, waiting included", ["stage"], buckets=SECONDS
)
REFUSED = Counter("lookalike_refused", "Requests that the edge refused", ["code"])
UNDER_WAY = Gauge("lookalike_requests_under_way", "Requests that are being received or answered")
WAITING = Gauge("lookalike_waiting", "What waits in front of a stage", ["stage"])
BATCHES = Histogram(
    "lookalike_batch_size", "What a stage did at once", ["stage"], buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
CACHED = Counter("lookalike_embedding_cache", "Pictures whose embedding was known, or was not", ["result"])
REPLACED = Gauge("lookalike_decoders_replaced", "Decoding processes that ended and were replaced", ["index"])
IMAGES = Gauge("lookalike_images", "Images of an index", ["index"])
