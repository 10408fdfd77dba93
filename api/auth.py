"""Keys: `Authorization: Bearer KEY`, where the server has one."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api import problems

bearer = HTTPBearer(auto_error=False, description="Needed where the server was started with --api-key.")


def require_key(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
    """Let a request pass that brings the server's key, or any if it has none. Raises Problem 401."""
    key: str | None = request.app.state.settings.api_key
    if key is not None:
        given = credentials.credentials if credentials else ""
        if not secrets.compare_digest(given.encode(errors="surrogateescape"), key.encode()):
            raise problems.unauthorized()
