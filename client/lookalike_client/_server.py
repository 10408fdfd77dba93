"""A server's address and key, checked for both clients."""

from __future__ import annotations

import httpx

from lookalike_client._version import __version__


def checked_url(text: str) -> httpx.URL:
    """Raises ValueError unless it is an address that HTTP can be spoken with."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError(f"base_url is not a URL: {error}.") from error
    if url.scheme not in ("http", "https") or not url.host or not 0 < (url.port or 80) < 65536:
        raise ValueError("base_url begins with http:// or https:// and names a host, such as http://localhost:8000.")
    return url


def headers(api_key: str | None) -> dict[str, str]:
    """Sent with every request. Raises ValueError for a key that no header can hold."""
    headers = {"User-Agent": f"lookalike-client/{__version__}"}
    if api_key is not None:
        if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise ValueError("api_key is one or more visible ASCII characters.")  # and is not shown
        headers["Authorization"] = f"Bearer {api_key}"
    return headers


def shown(url: httpx.URL) -> str:
    """The server in messages. httpx keeps a password out of `netloc`."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"
