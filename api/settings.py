"""The server's settings: defaults, then `LOOKALIKE_...` in the environment, then flags."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from api.errors import SettingInvalid
from api.logs import LogFormat
from indexer.machine import cores


def _words(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _site(value: str) -> str:
    if re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+|\*", value) is None:
        raise ValueError("a site is its scheme and name, without a path, such as https://shop.example")
    return value


def _host_name(value: str) -> str:
    if re.fullmatch(r"[\w.-]+|[0-9A-Fa-f:.]+", value) is None:
        raise ValueError("a host is its name or address alone, such as photos.example")
    return value


def _prefix(value: str) -> str:
    if re.fullmatch(r"(/[\w.~-]+)*", value) is None:
        raise ValueError("a path begins with / and does not end with one, such as /lookalike")
    return value


def _proxies(value: str) -> str:
    if value.strip() == "*":
        return "*"
    for proxy in filter(None, (part.strip() for part in value.split(","))):
        try:
            ip_network(proxy)
        except ValueError as error:
            raise ValueError("proxies are addresses and networks such as 10.0.0.0/8, or * alone") from error
    return value


_WORDS = (NoDecode, BeforeValidator(_words))
"""Reads a setting as words, separated by commas or white space."""
DEFAULT_PORT = 8000


def _port(value: object) -> object:
    """A port; the default where Kubernetes or Docker put the address of a service called `lookalike` there."""
    return DEFAULT_PORT if isinstance(value, str) and value.startswith("tcp://") else value


_OF_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT\w*)$|_PORT(_\d+_(TCP|UDP)\w*)?$")
"""Variables that Kubernetes puts into every pod beside a service whose name begins with ours."""
OF_OTHERS = frozenset(("LOOKALIKE_INDEX", "LOOKALIKE_CACHE", "LOOKALIKE_DEBUG"))
"""Variables that are no settings of the server."""


class Settings(BaseSettings):
    """The server's settings. Every field is `LOOKALIKE_` + its name in the environment."""

    model_config = SettingsConfigDict(env_prefix="LOOKALIKE_", extra="ignore")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535), BeforeValidator(_port)] = DEFAULT_PORT
    api_key: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = None
    """Keys, separated by white space: `[read:|write:]KEY` or `...sha256:HEX`.

    Never empty: what a variable that somebody forgot to set expands to must not open the server to everybody.
    """
    api_key_file: Path | None = None
    """The same, one a line."""
    session_secret: str | None = Field(default=None, min_length=16)
    """Secret that signs the page's sessions: servers behind one address share it. None: of this server alone."""
    allowed_hosts: Annotated[tuple[Annotated[str, AfterValidator(_host_name)], ...], *_WORDS] = ()
    """Names, beside this machine's own, to which a server without a key answers."""
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_site)], ...], *_WORDS] = ()
    """Sites whose pages may ask, e.g. https://shop.example."""
    root_path: Annotated[str, AfterValidator(_prefix)] = ""
    """The path under which a proxy has this server."""
    forwarded_allow_ips: Annotated[str, AfterValidator(_proxies)] = "127.0.0.1"
    """Addresses of proxies whose X-Forwarded-For and -Proto are believed, comma-separated."""
    max_upload_bytes: int = Field(default=20_000_000, ge=1)
    """The largest request body. A 24-megapixel JPEG is about 12 MB."""
    max_pixels: int = Field(default=100_000_000, ge=1)
    """The largest upload once decoded: 300 MB of RGB, for one image at a time."""
    max_waiting: int = Field(default_factory=lambda: min(512, 16 * cores()), ge=1)
    """Pictures under way, 16 a core, about a second's work; large ones count as several. More are refused (429)."""
    max_requests: int = Field(default=512, ge=1)
    """Requests of all kinds under way."""
    request_seconds: float = Field(default=30, gt=0, allow_inf_nan=False)
    """From the end of a request to its answer; then 504."""
    shutdown_seconds: int = Field(default=30, ge=0)
    """Seconds that requests in flight may take once the server is told to stop."""
    cached_embeddings: int = Field(default=10_000, ge=0)
    """Uploads whose embeddings are remembered, 2 KB each at 384 numbers; a space of regions adds 17 KB."""
    watch_private: bool = False
    """Whether watches may tell addresses of this machine and of private networks: whoever may write can name them."""
    log_format: LogFormat = "text"


def read_settings(**flags: Any) -> Settings:
    """The settings of a server started with these flags; None: not given. Raises SettingInvalid.

    Also for a variable that is none of ours: the one that was meant may be what keeps strangers out.
    """
    ours = {f"LOOKALIKE_{name.upper()}" for name in Settings.model_fields} | OF_OTHERS
    for name in sorted(os.environ.keys() - ours):
        if name.startswith("LOOKALIKE_") and not _OF_KUBERNETES.search(name):
            meant = get_close_matches(name, ours, 1)
            raise SettingInvalid(f"There is no setting {name}.{f' Is it {meant[0]}?' if meant else ''} Unset it.")
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = f"LOOKALIKE_{str(first['loc'][0]).upper()}"
        reason = str(first["msg"]).removeprefix("Value error, ")
        raise SettingInvalid(f"{name} cannot be used: {reason}.") from error
