"""Telling others of matches: the only file of the server that calls out.

A name is looked up once; each of its addresses is checked, and connected to as it was checked: a name cannot lead
elsewhere a moment later (DNS rebinding). Where one cannot be connected to, the next one is tried. No redirect is
followed, no proxy of the environment is used, and of an answer only the head is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import httpx

from api.errors import AddressRefused
from search.catalog.watches import WebhookForm
from search.types import JsonObject

MAX_URL = 2_000
"""Characters of an address: longer ones are refused by many servers."""
SEND_SECONDS = 10.0
"""Seconds from looking a name up to the head of the answer; what takes longer counts as failed."""
CONNECT_SECONDS = 3.0
"""For a connection to one of several addresses, so that there is time for the next one."""
MAX_ADDRESSES = 4
"""Of a name that are tried: more must not hold up other messages."""
MAX_DISCORD_TEXT = 200
"""Characters of a line of Discord's form, which allows 256 for a title."""
TIMESTAMP, SIGNATURE, DELIVERY = "Lookalike-Timestamp", "Lookalike-Signature", "Lookalike-Delivery"
"""Headers of a message: seconds since 1970; `v1=` and the signature; and its number, the same at every attempt."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, kw_only=True)
class Told:
    """The outcome of an attempt. answer: an HTTP status, or why there was none. retry_after: seconds, if it says so."""

    ok: bool
    answer: str
    retry_after: float | None = None


def checked_url(url: str, *, private: bool) -> str:
    """An address that can be told, as far as that is seen without looking its name up. Raises AddressRefused."""
    try:
        parsed = httpx.URL(url)
        port = parsed.port
    except (httpx.InvalidURL, ValueError) as error:
        raise AddressRefused("A watch tells an address such as https://example.com/hook.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or len(url) > MAX_URL or port == 0:
        raise AddressRefused(f"A watch tells an http or https address of at most {MAX_URL:,} characters.")
    if parsed.userinfo:
        raise AddressRefused("An address holds no user and password: put a secret into its path.")
    if not private:
        name = parsed.host.lower().rstrip(".")
        if name == "localhost" or name.endswith(".localhost") or (_is_address(name) and not is_public(name)):
            raise AddressRefused(_PRIVATE)
    return str(parsed)


_PRIVATE = (
    "A watch does not tell addresses of this machine or of private networks. LOOKALIKE_WATCH_PRIVATE=true, set where "
    "the server starts, allows it."
)


def shown_address(url: str) -> str:
    """An address without its path, which may be a secret."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also inside of an IPv6 address that stands for it."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    return ip.is_global and not (
        getattr(ip, "is_site_local", False) or ip.is_multicast or ip.is_reserved or ip.is_unspecified
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over the timestamp, a dot and the body, as it is sent: `v1=` and 64 hexadecimal digits."""
    return "v1=" + hmac.digest(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hex()


def json_message(index: str, watch: JsonObject, delivery: str, matches: Sequence[JsonObject]) -> bytes:
    """The body of Lookalike's own form."""
    message = {"index": index, "watch": dict(watch), "delivery": delivery, "matches": [*matches]}
    return json.dumps(message, ensure_ascii=False).encode()


def discord_message(watch: JsonObject, matches: Sequence[JsonObject]) -> bytes:
    """The body of Discord's form: an embed for each match, at most ten; nobody is mentioned, whatever labels say."""
    count = len(matches)
    embeds = [
        {
            "title": _line(str(match["name"] or match["id"])),
            "description": _line(", ".join(match["labels"])),
            "footer": {"text": f"{match['score']:.3f} · {match['id'][:16]}"},
        }
        for match in matches
    ]
    title = f"{_line(str(watch['name']))}: {count} new {'match' if count == 1 else 'matches'}"
    return json.dumps({"content": title, "embeds": embeds, "allowed_mentions": {"parse": []}}).encode()


def _line(text: str) -> str:
    return text if len(text) <= MAX_DISCORD_TEXT else text[: MAX_DISCORD_TEXT - 1] + "…"


def headers_of(form: WebhookForm, secret: str, delivery: str, body: bytes) -> dict[str, str]:
    """The headers of a message; of Lookalike's own form, with its signature of now."""
    given = {"Content-Type": "application/json", "User-Agent": "Lookalike", DELIVERY: delivery}
    if form == "json":
        timestamp = str(int(time.time()))
        given |= {TIMESTAMP: timestamp, SIGNATURE: signature(secret, timestamp, body)}
    return given


async def tell(url: str, headers: Mapping[str, str], body: bytes, *, private: bool) -> Told:
    """Send a message once. Every failure is an outcome, and nothing is raised.

    private: also to addresses of this machine and of private networks.
    """
    try:
        async with asyncio.timeout(SEND_SECONDS):
            return await _tell(url, headers, body, private=private)
    except TimeoutError:
        return Told(ok=False, answer=f"no answer within {SEND_SECONDS:.0f} seconds")
    except AddressRefused:
        return Told(ok=False, answer="the address is private")
    except socket.gaierror:
        return Told(ok=False, answer="the name is unknown")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return Told(ok=False, answer=f"no answer ({type(error).__name__})")


async def _tell(url: str, headers: Mapping[str, str], body: bytes, *, private: bool) -> Told:
    named = httpx.URL(url)
    host = named.raw_host.decode("ascii")
    port = named.port or (443 if named.scheme == "https" else 80)
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = dict.fromkeys(str(one[4][0]) for one in found)
    allowed = [address for address in addresses if private or is_public(address)][:MAX_ADDRESSES]
    if not allowed:
        raise AddressRefused(_PRIVATE)
    sent = {**headers, "Host": named.netloc.decode("ascii")}
    secure = {"sni_hostname": host}  # the certificate is the name's, wherever it leads
    timeout = httpx.Timeout(SEND_SECONDS, connect=SEND_SECONDS if len(allowed) == 1 else CONNECT_SECONDS)
    async with httpx.AsyncClient(verify=_certificates(), timeout=timeout, trust_env=False) as client:
        for address in allowed:
            request = client.build_request(
                "POST", named.copy_with(host=address), headers=sent, content=body, extensions=secure
            )
            try:
                response = await client.send(request, stream=True, follow_redirects=False)
            except (httpx.ConnectError, httpx.ConnectTimeout):  # nothing was sent there
                if address == allowed[-1]:
                    raise
            else:
                await response.aclose()
                answer = str(response.status_code)
                return Told(ok=response.is_success, answer=answer, retry_after=_retry_after(response))
    raise AssertionError("the last address answers or raises")


@cache
def _certificates() -> ssl.SSLContext:
    """Read once: it takes some 20 ms."""
    return httpx.create_ssl_context(trust_env=False)


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 8 else None
