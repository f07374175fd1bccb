"""Which rules of a table to list."""

import re
from http import HTTPStatus

import msgspec
from aiohttp import web

from vnet_agent.api.exchange import read_flag, read_number
from vnet_agent.api.problem import Problem
from vnet_agent.api.services import SERVICES
from vnet_agent.handlers.state import StoredRule
from vnet_agent.model.handler import Origin


class RuleFilter(msgspec.Struct, frozen=True, kw_only=True):
    """None is any. `port` is one that the rule names, to match or to send to; `instance` one
    that it matches."""

    priority: int | None = None
    cookie: int | None = None
    origin: Origin | None = None
    waiting: bool | None = None
    port: str | None = None
    instance: str | None = None

    def takes(self, rule: StoredRule, is_waiting: bool) -> bool:
        handler = rule.handler
        return (
            self.priority in (None, handler.priority)
            and self.cookie in (None, handler.cookie)
            and self.origin in (None, rule.origin)
            and self.waiting in (None, is_waiting)
            and self.instance in (None, handler.match.instance)
            and (self.port is None or self.port in handler.ports())
        )


def read_filter(request: web.Request) -> RuleFilter:
    query = request.query
    return RuleFilter(
        priority=_read_number(request, "priority", 0xFFFF),
        cookie=_read_cookie(query.get("cookie")),
        origin=_read_origin(query.get("origin")),
        waiting=read_flag(request, "waiting") if "waiting" in query else None,
        port=_read_port(request),
        instance=query["instance"].lower() if "instance" in query else None,
    )


def _read_number(request: web.Request, name: str, high: int) -> int | None:
    return read_number(request, name, 0, low=0, high=high) if name in request.query else None


def _read_cookie(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"0x[0-9a-fA-F]{1,8}|[0-9]{1,10}", text):
        detail = f"cookie must be a number of 32 bits, not {text[:60]!r}."
        raise Problem(HTTPStatus.BAD_REQUEST, detail)
    return int(text, 16 if text.startswith("0x") else 10)


def _read_origin(text: str | None) -> Origin | None:
    if text is None:
        return None
    try:
        return Origin(text)
    except ValueError:
        detail = f"origin must be one of {', '.join(Origin)}, not {text[:60]!r}."
        raise Problem(HTTPStatus.BAD_REQUEST, detail) from None


def _read_port(request: web.Request) -> str | None:
    """By UUID, which need not be here, or by tap or MAC of a port that is."""
    text = request.query.get("port")
    if text is None or re.fullmatch(r"[0-9a-fA-F-]{36}", text):
        return text and text.lower()
    return request.app[SERVICES].inventory.get(text).port.uuid
