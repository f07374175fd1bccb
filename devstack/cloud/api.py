"""The controller's API as a script uses it: blocking, JSON in and out."""

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any


class ApiError(Exception):
    """An answer that is no success; `status` is HTTP's."""

    def __init__(self, method: str, path: str, status: int, detail: str) -> None:
        self.status = status
        super().__init__(f"{method} {path}: {status}: {detail}")


class Api:
    """Speaks to one base URL such as http://127.0.0.1:7470."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: object) -> Any:
        if query:
            path += "?" + urllib.parse.urlencode(query)
        return self._call("GET", path)

    def put(self, path: str, body: object) -> Any:
        return self._call("PUT", path, body)

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def events(self, subject: str | None = None) -> list[dict[str, Any]]:
        """Every event the controller stored, in its order."""
        found: list[dict[str, Any]] = []
        query: dict[str, object] = {"limit": 500}
        if subject:
            query["subject"] = subject
        while True:
            page = self.get("/v1/events", **query)
            found += page["events"]
            if not page["events"]:
                return found
            query["after"] = page["cursor"]

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")
            raise ApiError(method, path, error.code, detail) from None
        return json.loads(text) if text else None
