"""Python client of Lookalike, the self-hosted image similarity search engine.

    from lookalike_client import Client

    with Client("http://localhost:8000") as client:
        for hit in client.search("query.jpg", k=5):
            print(hit.score, hit.path)

All that it raises on purpose is a LookalikeError; `help(lookalike_client._errors)` draws the tree.
"""

from lookalike_client._async_client import AsyncClient
from lookalike_client._board_models import Board, BoardItem, Comment, Delivery, Match, Share, Vote, Watch
from lookalike_client._client import Client
from lookalike_client._errors import (
    APIError,
    BadRequest,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    DiskFull,
    Forbidden,
    LookalikeError,
    NotFound,
    Overloaded,
    PromptInvalid,
    ProtocolError,
    ServerError,
    TimedOut,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unprocessable,
    UnsupportedImage,
)
from lookalike_client._explain_models import ExplainedSide, Explanation, PatchGrid, PatchMatch
from lookalike_client._feedback_models import (
    FeedbackResult,
    FeedbackRound,
    FeedbackSession,
    FeedbackSummary,
    LabelResult,
    LabelRule,
    MeasuredRule,
    MeasuredShare,
)
from lookalike_client._images import ImageInput
from lookalike_client._many import Outcome
from lookalike_client._models import (
    Aspect,
    DuplicateFile,
    DuplicateGroup,
    Hit,
    Image,
    ImageMap,
    IndexInfo,
    MapCluster,
    MapPoint,
    Part,
    Reason,
    SearchResult,
    SpaceInfo,
)
from lookalike_client._version import __version__

__all__ = [
    "APIError",
    "Aspect",
    "AsyncClient",
    "BadRequest",
    "Board",
    "BoardItem",
    "Client",
    "Comment",
    "Conflict",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Delivery",
    "DiskFull",
    "DuplicateFile",
    "DuplicateGroup",
    "ExplainedSide",
    "Explanation",
    "FeedbackResult",
    "FeedbackRound",
    "FeedbackSession",
    "FeedbackSummary",
    "Forbidden",
    "Hit",
    "Image",
    "ImageInput",
    "ImageMap",
    "IndexInfo",
    "LabelResult",
    "LabelRule",
    "LookalikeError",
    "MapCluster",
    "MapPoint",
    "Match",
    "MeasuredRule",
    "MeasuredShare",
    "NotFound",
    "Outcome",
    "Overloaded",
    "Part",
    "PatchGrid",
    "PatchMatch",
    "PromptInvalid",
    "ProtocolError",
    "Reason",
    "SearchResult",
    "ServerError",
    "Share",
    "SpaceInfo",
    "TimedOut",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Unprocessable",
    "UnsupportedImage",
    "Vote",
    "Watch",
    "__version__",
]

for _name in __all__:  # a traceback says lookalike_client.NotFound: where it is imported from, not where it is written
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
del _name
