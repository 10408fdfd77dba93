"""The catalog's tables."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

from search.names import folded

APPLICATION_ID = 0x4C4B414C
"""`LKAL`: tells a catalog from any other SQLite file."""
SCHEMA_VERSION = 8
"""`search.catalog.migrate` brings older ones up to it."""
tables = MetaData()

images = Table(
    "images",
    tables,
    Column("rowid", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("format", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("taken_at", Text),
    Column("camera", Text),
    Column("latitude", Float),
    Column("longitude", Float),
    Column("phash", BigInteger),
    Column("labels", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("seq", BigInteger, nullable=False, index=True),
    sqlite_autoincrement=True,  # a rowid is FAISS's id: it must never be given to a second image
)

labels = Table(  # `images.labels` again, for filters: a label is found without reading every image
    "labels",
    tables,
    Column("key", Text, primary_key=True),  # what people may type for it: see `label_keys`
    Column("label", Text, primary_key=True),
    Column("image", Integer, ForeignKey("images.rowid"), primary_key=True, index=True),
    sqlite_with_rowid=False,
)

locations = Table(
    "locations",
    tables,
    Column("location", Integer, primary_key=True),
    Column("root", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("image", Integer, ForeignKey("images.rowid"), index=True),  # NULL: the user removed this content
    Column("missing_since", Text),  # when a build first found no file here; NULL: the file was there
    Column("removed_phash", BigInteger),  # of a removed image that was here: it is known after an edit of its file
    Index("locations_path", "root", "path", unique=True),
)

spaces = Table(
    "spaces",
    tables,
    Column("space", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("recipe", JSON, nullable=False),
    Column("encoding", JSON, nullable=False),
    Column("storage", Text, nullable=False, server_default="float32"),  # of its vectors' numbers
    Column("transform", JSON, nullable=False, server_default='{"kind": "identity"}'),  # a `TransformSpec`
    Column("added_seq", BigInteger),  # NULL: it came with the index
    Column("complete_seq", BigInteger),  # every image with a greater seq came with its vector; NULL: not complete yet
    Column("missing", BigInteger, nullable=False, server_default="0"),  # images without a vector in it
    Column("dropped", Integer, nullable=False, server_default="0"),  # 1: vectors may be left; 2: none is
)

embeddings = Table(
    "embeddings",
    tables,
    Column("embedding", Integer, primary_key=True),
    Column("image_rowid", Integer, ForeignKey("images.rowid"), nullable=False),
    Column("space_id", Integer, ForeignKey("spaces.space"), nullable=False),
    Column("vector", LargeBinary, nullable=False),
    Column("crc32", BigInteger, nullable=False),
    Column("seq", BigInteger),  # NULL: it came with its image, and has that one's
    Index("embeddings_by_image", "image_rowid", "space_id", unique=True),
)

Index(
    "embeddings_by_seq",
    embeddings.c.seq,
    embeddings.c.space_id,
    embeddings.c.image_rowid,
    sqlite_where=embeddings.c.seq.is_not(None),
)

failures = Table(
    "failures",
    tables,
    Column("root", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("when", Text, nullable=False),
)

tombstones = Table(
    "tombstones",
    tables,
    Column("seq", BigInteger, primary_key=True),
    Column("rowid", Integer, nullable=False),
    Column("id", Text, nullable=False, index=True),
    Column("barred", Integer, nullable=False),  # 1: removed by the user, and kept away until `--readd`
)

decisions = Table(  # pairs that are not duplicates, by content: no reference to `images`, which come and go
    "decisions",
    tables,
    Column("one", Text, primary_key=True),
    Column("other", Text, primary_key=True, index=True),  # not smaller than `one`; equal: copies of it are wanted
    Column("decided_at", Text, nullable=False),
    sqlite_with_rowid=False,
)

meanings = Table(  # of words of names and labels: `words` has them, a table of FTS5
    "meanings",
    tables,
    Column("number", Integer, primary_key=True),
    Column("head", Text, nullable=False),  # the SHA-256 of what the encoder's vectors are centred by
    Column("word", Text, nullable=False),
    Column("vector", LargeBinary, nullable=False),  # float16
    Index("meanings_by_word", "head", "word", unique=True),
    sqlite_autoincrement=True,  # a number says what is newer
)

rounds = Table(  # of feedback on a question: a tree, whose root holds the question; they are added, and never changed
    "rounds",
    tables,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("session", Text, nullable=False, index=True),  # the root's id
    Column("parent", Text),  # NULL: the root
    Column("name", Text),  # a session is called by its root's
    Column("question", JSON),  # of the root: a `TaughtQuestion`
    Column("rule", JSON),  # of the root: a `LabelRule`, where there is one
    Column("added_at", Text, nullable=False),
)

feedback = Table(  # marks of a round, by content: no reference to `images`, which come and go
    "feedback",
    tables,
    Column("round", Text, ForeignKey("rounds.id"), primary_key=True),
    Column("image", Text, primary_key=True, index=True),
    Column("more", Integer, nullable=False),  # 1: more like it; 0: less
    sqlite_with_rowid=False,
)

questions = Table(  # saved questions: of a board, or of a watch, and deleted with it
    "questions",
    tables,
    Column("question", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("body", JSON, nullable=False),  # as a search over HTTP, without pictures
    Column("saved_at", Text, nullable=False),
    sqlite_autoincrement=True,
)

boards = Table(
    "boards",
    tables,
    Column("board", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=""),
    Column("made_at", Text, nullable=False),
    sqlite_autoincrement=True,  # an address of a board must never lead to another
)

board_items = Table(  # images by content, with no reference to `images`: what is removed may come back
    "board_items",
    tables,
    Column("item", Integer, primary_key=True),
    Column("board", Integer, ForeignKey("boards.board"), nullable=False),
    Column("position", Integer, nullable=False),  # ascending on its board; there may be gaps
    Column("image", Text, index=True),  # an id; NULL: it is a question
    Column("question", Integer, ForeignKey("questions.question"), index=True),  # NULL: it is an image
    Column("note", Text, nullable=False, server_default=""),
    Column("added_at", Text, nullable=False),
    Index("board_items_by_place", "board", "position"),
    Index("board_items_by_image", "board", "image", unique=True),
    sqlite_autoincrement=True,
)

comments = Table(
    "comments",
    tables,
    Column("comment", Integer, primary_key=True),
    Column("board", Integer, ForeignKey("boards.board"), nullable=False, index=True),
    Column("item", Integer, ForeignKey("board_items.item"), index=True),  # NULL: on the board as a whole
    Column("name", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("share", Integer),  # the link by which a guest wrote it, perhaps gone; NULL: somebody with a key
    Column("written_at", Text, nullable=False),
    sqlite_autoincrement=True,
)

votes = Table(
    "votes",
    tables,
    Column("item", Integer, ForeignKey("board_items.item"), primary_key=True),
    Column("share", Integer, primary_key=True),  # as in `comments`; 0: somebody with a key
    Column("name", Text, primary_key=True),
    Column("voted_at", Text, nullable=False),
    sqlite_with_rowid=False,
)

shares = Table(  # links for guests
    "shares",
    tables,
    Column("share", Integer, primary_key=True),
    Column("board", Integer, ForeignKey("boards.board"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("token_sha256", Text, nullable=False, unique=True),
    Column("may_comment", Integer, nullable=False),
    Column("may_vote", Integer, nullable=False),
    Column("made_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    sqlite_autoincrement=True,  # comments name it when it is gone
)

watches = Table(
    "watches",
    tables,
    Column("watch", Integer, primary_key=True),
    Column("question", Integer, ForeignKey("questions.question"), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("form", Text, nullable=False),  # `json` or `discord`
    Column("secret", Text, nullable=False),  # its messages are signed with it
    Column("made_seq", BigInteger, nullable=False),  # it tells of images that were added later
    Column("seen_seq", BigInteger, nullable=False),  # all up to this one have been looked at
    Column("problem", Text),  # why its question cannot be asked; NULL: it can
    sqlite_autoincrement=True,
)

deliveries = Table(  # messages of watches: waiting, and the last that were sent or given up
    "deliveries",
    tables,
    Column("delivery", Integer, primary_key=True),
    Column("watch", Integer, ForeignKey("watches.watch"), nullable=False),
    Column("matches", JSON, nullable=False),  # [{"id", "score", "fmr"}]
    Column("state", Text, nullable=False),  # `waiting`, `sent` or `failed`
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("made_at", Text, nullable=False),
    Column("tried_at", Text),  # last
    Column("answer", Text),  # of the last try: a status, or why there was none
    Index("deliveries_by_watch", "watch", "state"),
    sqlite_autoincrement=True,
)

words_due = Table(  # images whose words are out of date: `search.catalog.fulltext` empties it before each commit
    "words_due",
    tables,
    Column("image", Integer, primary_key=True),
)

state = Table(
    "state",
    tables,
    Column("key", Text, primary_key=True),
    Column("value", JSON, nullable=False),
)


def label_keys(label: str) -> set[str]:
    """The forms under which filters find a label: in any case, and by its last part (`africa` for `2024/Africa`)."""
    return {folded(label), folded(label.rpartition("/")[2])}


def label_rows(rowid: int, held: Iterable[str]) -> list[dict[str, str | int]]:
    """The rows of `labels` for an image."""
    return [{"key": key, "label": label, "image": rowid} for label in held for key in sorted(label_keys(label))]
