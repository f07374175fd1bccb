"""What is wrong with a request, as RFC 9457 says it."""

from http import HTTPStatus
from typing import Any

import msgspec

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """Ends a request with `status`; `fields` are extension members, such as index and field."""

    def __init__(self, status: int, detail: str, **fields: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.fields = fields
        self.headers: dict[str, str] = {}

    def retry_after(self, seconds: int) -> "Problem":
        self.headers["Retry-After"] = str(seconds)
        return self

    def body(self) -> bytes:
        title = HTTPStatus(self.status).phrase
        known = {"type": "about:blank", "title": title, "status": self.status}
        return msgspec.json.encode(known | {"detail": self.detail} | self.fields)
