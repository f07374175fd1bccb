"""Reading requests into typed values and writing answers, the same way in every room."""

import asyncio
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from vnet_controller.intake import HOST, JSON, find_field
from vnet_controller.problem import Problem
from vnet_controller.services import SERVICES

T = TypeVar("T")

LARGEST = 2**63 - 1

#: Seconds that a body may take; agents' batches take milliseconds.
BODY_TIMEOUT = 30.0


def reply(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type=JSON)


async def read_body(request: web.Request) -> bytes:
    """The bytes of the body; raises Problem when they are encoded, break off or do not come."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Problem(415, "Send the body as it is, without Content-Encoding.")
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except TimeoutError:
        raise Problem(408, f"The body did not come within {BODY_TIMEOUT:g} seconds.") from None
    except (ConnectionError, web.RequestPayloadError) as error:
        raise Problem(400, f"The body broke off: {error}") from None


async def read_json(request: web.Request, kind: type[T]) -> T:
    """The body as `kind`; raises Problem that names the field."""
    if request.content_type != JSON:
        raise Problem(415, f"Send the body as {JSON}.")
    body = await read_body(request)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Problem(400, f"{error}.", field=find_field(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"The body is no JSON: {error}.") from None


def read_query(request: web.Request, *known: str) -> None:
    """Refuse parameters that nobody would look at: a misspelt filter must not mean "all"."""
    for name in request.query:
        if name not in known:
            raise Problem(400, f"Unknown parameter {name!r}; known: {', '.join(known) or 'none'}.")


def read_number(
    request: web.Request, name: str, default: int | None = None, *, low: int = 0
) -> int | None:
    """A whole number of the query string, or `default` where it is not given."""
    return parse_number(request.query.get(name), name, low=low, default=default)


def parse_number(
    text: str | None, name: str, *, low: int = 0, default: int | None = None
) -> int | None:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= LARGEST):
        raise Problem(400, f"{name} must be a whole number from {low} on, not {text[:40]!r}.")
    return int(text)


def read_limit(request: web.Request, default: int = 100) -> int:
    """The `limit` of the query string, cut to what the configuration allows."""
    most: int = request.app[SERVICES].conf.limits.page_size
    return min(read_number(request, "limit", low=1) or default, most)


def read_text(request: web.Request, name: str) -> str | None:
    text = request.query.get(name)
    if text is not None and "\0" in text:
        raise Problem(400, f"{name} must not contain NUL.")
    return text


def read_path(request: web.Request, name: str) -> str:
    """A part of the path that becomes a key."""
    text = request.match_info[name]
    if not 0 < len(text) <= 256 or not text.isprintable():
        raise Problem(400, f"The {name} in the address must be 1 to 256 printable characters.")
    return text


def read_host(request: web.Request) -> str:
    text = request.match_info["host"]
    if not HOST.match(text):
        raise Problem(400, "The host in the address is no host's name.", field="host")
    return text
