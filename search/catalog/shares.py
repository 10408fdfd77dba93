"""Links by which guests see one board. Of a link's token only a hash is kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select

from search.catalog.boards import must_have_board
from search.catalog.lookup import Lookup
from search.catalog.questions import now
from search.catalog.schema import shares
from search.errors import NotOnBoard, TooMany

MAX_SHARES = 100
"""Links to a board that hold."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A link for guests, without its token, of which only a hash is kept."""

    number: int
    board: int
    name: str
    may_comment: bool
    may_vote: bool
    made_at: str
    expires_at: str

    @property
    def expired(self) -> bool:
        """Whether it opens nothing any more."""
        return self.expires_at <= now()


def token_hash(token: str) -> str:
    """What is kept of a link's token: it has 256 random bits, so that a plain hash is enough."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


class ShareChanges(Lookup):
    """The part of a write transaction that holds links."""

    def add_share(
        self, board: int, name: str, token: str, *, may_comment: bool, may_vote: bool, expires_at: str
    ) -> int:
        """Make a link for guests; those of this board that have expired are forgotten. Returns its number.

        Raises UnknownBoard, TooMany.
        """
        must_have_board(self._connection, board)
        here = shares.c.board == board
        self._connection.execute(delete(shares).where(here, shares.c.expires_at <= now()))
        count = select(func.count()).select_from(shares).where(here)
        if self._connection.execute(count).scalar_one() >= MAX_SHARES:
            raise TooMany(f"A board has at most {MAX_SHARES} links. Revoke one first.")
        values = {
            "board": board,
            "name": name,
            "token_sha256": token_hash(token),
            "may_comment": int(may_comment),
            "may_vote": int(may_vote),
            "made_at": now(),
            "expires_at": expires_at,
        }
        key = self._connection.execute(insert(shares).values(values)).inserted_primary_key
        assert key is not None, "the table has a number for each row"
        return int(key[0])

    def drop_share(self, board: int, share: int) -> None:
        """Revoke a link. Raises UnknownBoard, NotOnBoard."""
        must_have_board(self._connection, board)
        here = (shares.c.board == board) & (shares.c.share == share)
        if not self._connection.execute(delete(shares).where(here)).rowcount:
            raise NotOnBoard("The board has no such link.")

    def holds(self, share: Share) -> bool:
        """Whether a link that was looked up before was neither revoked nor has expired meanwhile."""
        held = self._connection.execute(select(shares.c.share).where(shares.c.share == share.number)).scalar()
        return held is not None and not share.expired


def read_shares(connection: Connection, board: int) -> list[Share]:
    """The links to a board, the oldest first. Raises UnknownBoard."""
    must_have_board(connection, board)
    query = select(shares).where(shares.c.board == board).order_by(shares.c.share)
    return [_share(row) for row in connection.execute(query)]


def find_share(connection: Connection, token: str) -> Share | None:
    """The link of a token, where it holds."""
    row = connection.execute(select(shares).where(shares.c.token_sha256 == token_hash(token))).first()
    share = None if row is None else _share(row)
    return None if share is None or share.expired else share


def _share(row: Row[Any]) -> Share:
    return Share(
        number=row.share,
        board=row.board,
        name=row.name,
        may_comment=bool(row.may_comment),
        may_vote=bool(row.may_vote),
        made_at=row.made_at,
        expires_at=row.expires_at,
    )
