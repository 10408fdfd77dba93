"""Why an image is a hit. `_explain.py` is made of `_async_explain.py`: change this one."""
# ruff: noqa: A002  (id is the interface's own word)

from __future__ import annotations

from lookalike_client import _explain_calls
from lookalike_client._calls import Box
from lookalike_client._connection import Connection
from lookalike_client._explain_models import Explanation
from lookalike_client._images import ImageInput
from lookalike_client._many import apart


class Explaining(Connection):
    """A connection, and what explains a hit."""

    def explain(
        self,
        hit: str,
        image: ImageInput | None = None,
        *,
        id: str | None = None,
        box: Box | None = None,
        space: str | None = None,
        matches: int = 8,
        index: str | None = None,
    ) -> Explanation:
        """Which patches of a hit (its id) match which of an image's, or of an indexed image's (its id).

        box: as of `search`. matches: how many of the clearest to list, 0..64. The server's first explanation in a space
        loads a model, which takes seconds.

        Raises NotFound (an id, or a file that is gone), Conflict (the space has no patches), UnsupportedImage,
        Unprocessable, TooLarge; TypeError for none or both of image and id.
        """
        call = apart(_explain_calls.explain, hit, image, id=id, box=box, space=space, matches=matches, index=index)
        return self._run(call)
