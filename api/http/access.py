"""Who may do what: keys and their scopes, sessions of the web page, and what browsers are told about other sites."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from api.errors import KeysInvalid
from search.files import decoded

SESSION_SECONDS = 12 * 3600
COOKIE = "lookalike_session"
_ENTRY = re.compile(
    r"(?:(?P<scope>read|write):)?(?:sha256:(?P<hash>[0-9a-f]{64})|(?!(?:read|write|sha256):)(?P<key>[!-~]+))",
    re.IGNORECASE,
)


class Scope(IntEnum):
    """The scope of a key."""

    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Key:
    """A key as the server keeps it: its SHA-256, never itself."""

    hash: bytes
    scope: Scope


class Keys:
    """The keys of a server, and the sessions opened with them. Without any, everybody may do everything."""

    def __init__(self, keys: Sequence[Key] = (), *, secret: bytes | None = None) -> None:
        """secret: what sessions are signed with; servers that share it know each other's. None: one of its own."""
        self._keys = tuple(keys)
        self._secret = secret or secrets.token_bytes(32)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def scope(self, key: str) -> Scope | None:
        """The scope of a key; None for one that is not ours. The time it takes tells nothing of the keys."""
        digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
        found = None
        for known in self._keys:
            if hmac.compare_digest(digest, known.hash):
                found = known.scope
        return found

    def session(self, key: str) -> str | None:
        """A cookie's value that stands for this key for SESSION_SECONDS; None for one that is none of ours."""
        if self.scope(key) is None:
            return None
        until = int(time.time()) + SESSION_SECONDS
        digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
        message = until.to_bytes(8, "big") + hmac.digest(self._secret, digest, "sha256")[:16]
        return base64.urlsafe_b64encode(message + self._signed(message)).decode()

    def session_scope(self, value: str) -> Scope | None:
        """The scope of a session: that of its key, while it is one of ours; None where the session is over."""
        try:
            data = base64.urlsafe_b64decode(value.encode())
        except ValueError:
            return None
        message, signature = data[:24], data[24:]
        if not hmac.compare_digest(signature, self._signed(message)):
            return None
        if int.from_bytes(message[:8], "big") < time.time():
            return None
        for known in self._keys:
            if hmac.compare_digest(message[8:], hmac.digest(self._secret, known.hash, "sha256")[:16]):
                return known.scope
        return None

    def _signed(self, message: bytes) -> bytes:
        return hmac.digest(self._secret, b"session" + message, "sha256")


def read_keys(entries: Iterable[str], file: Path | None = None) -> list[Key]:
    """Keys as they are written in the environment, and one a line in a file, where `#` begins a comment.

    Each is `[read:|write:]KEY` or `[read:|write:]sha256:HEX`; without a scope it may write. Raises KeysInvalid.
    """
    lines = list(entries)
    if file is not None:
        try:
            text = decoded(file.read_bytes())
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise KeysInvalid(f"The keys of {file} cannot be read: {reason}.") from error
        found = [line.strip() for line in text.splitlines()]
        lines += [line for line in found if line and not line.startswith("#")]
        if not lines:
            raise KeysInvalid(f"{file} has no key in it. Write one a line: read:KEY or write:KEY.")
    keys = [_key(line) for line in lines]
    if len({key.hash for key in keys}) < len(keys):
        raise KeysInvalid("A key appears twice, in the environment or in the file of keys. Keep it once.")
    return keys


def key_to_send(entries: str) -> str:
    """The first key of those a server is told, as a client sends it. Raises KeysInvalid for a hash, and for none."""
    match = _ENTRY.fullmatch(entries.split()[0]) if entries.strip() else None
    if match is None or match["key"] is None:
        raise KeysInvalid("LOOKALIKE_API_KEY does not say which key to send. Give one with --api-key.")
    return match["key"]


def _key(text: str) -> Key:
    match = _ENTRY.fullmatch(text)
    # Without a scope, what stands before a colon may be one that is misspelled.
    if match is None or (match["scope"] is None and ":" in (match["key"] or "")):
        raise KeysInvalid(
            "A key is written as KEY, read:KEY, write:KEY or read:sha256:HEX, in visible ASCII characters; one with a "
            "colon in it needs its scope: write:KEY."
        )
    scope = Scope.READ if (match["scope"] or "").lower() == "read" else Scope.WRITE
    if match["hash"]:
        return Key(bytes.fromhex(match["hash"]), scope)
    return Key(hashlib.sha256(match["key"].encode()).digest(), scope)


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant by a host's name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


def host_of(header: str) -> str:
    """The host in a `Host` header, without its port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if header.count(":") == 1 else header


def crosses_sites(origin: str | None, fetch_site: str | None, host: str, allowed: Sequence[str]) -> bool:
    """Whether a browser says, by `Sec-Fetch-Site` or an `Origin` that is not `host`, that another site's page asks."""
    if "*" in allowed or (origin is not None and origin in allowed):
        return False
    if fetch_site is not None:
        return fetch_site not in ("same-origin", "none")
    return origin is not None and origin.partition("://")[2].lower() != host.lower()
