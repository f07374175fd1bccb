"""Reading requests and writing answers: what every resource does in the same way."""

from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from vnet_agent.api.problem import Problem

T = TypeVar("T")

JSON = "application/json"


def reply(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type=JSON)


def read_query(request: web.Request, *allowed: str) -> None:
    """Refuse parameters that mean nothing here: a misspelt filter must not show everything."""
    for name in request.query:
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            detail = f"Parameter {name[:60]!r} is not known here; known are: {known}."
            raise Problem(HTTPStatus.BAD_REQUEST, detail)


def read_number(request: web.Request, name: str, default: int, *, low: int, high: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        detail = f"{name} must be a number from {low} to {high}, not {text[:60]!r}."
        raise Problem(HTTPStatus.BAD_REQUEST, detail)
    return int(text)


def read_flag(request: web.Request, name: str) -> bool:
    return bool(read_number(request, name, 0, low=0, high=1))


def decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"The body is wrong: {error}") from None
