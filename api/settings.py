"""What the server can be told: defaults, then `LOOKALIKE_...` in the environment, then flags."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from search.errors import SearchError


class SettingInvalid(SearchError):
    """A setting in the environment that cannot be read; the text names it."""


class Settings(BaseSettings):
    """The server's settings. Every field is `LOOKALIKE_` + its name in the environment."""

    model_config = SettingsConfigDict(env_prefix="LOOKALIKE_", extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_key: str | None = Field(default=None, min_length=1)
    """Never empty: what a variable that somebody forgot to set expands to must not open the server to everybody."""
    max_upload_bytes: int = Field(default=20_000_000, ge=1)
    """The largest request body. A 24-megapixel JPEG is about 12 MB."""
    max_pixels: int = Field(default=100_000_000, ge=1)
    """The largest upload once decoded: 300 MB of RGB, for one image at a time."""
    max_waiting: int = Field(default=64, ge=1)
    """Images that may wait for the encoder: about two seconds' work of two cores. More are refused with 429."""


def read_settings(**flags: Any) -> Settings:
    """The settings of a server started with these flags; None: not given. Raises SettingInvalid."""
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = f"LOOKALIKE_{str(first['loc'][0]).upper()}"
        raise SettingInvalid(f"{name} cannot be used: {first['msg']}.") from error
