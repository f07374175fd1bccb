"""What is wrong with a request, as RFC 9457 says it."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec
from aiohttp import web

from vnet_agent import exceptions

LOG = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"

#: The first class that fits says the status.
_STATUS: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (exceptions.UnknownPort, HTTPStatus.NOT_FOUND),
    (exceptions.MigrationError, HTTPStatus.NOT_FOUND),
    (exceptions.UnknownEvent, HTTPStatus.BAD_REQUEST),
    (exceptions.FilterError, HTTPStatus.BAD_REQUEST),
    (exceptions.CaptureBusy, HTTPStatus.CONFLICT),
    (exceptions.UnknownGroup, HTTPStatus.NOT_FOUND),
    (exceptions.PolicyChanged, HTTPStatus.PRECONDITION_FAILED),
    (exceptions.PolicyOwned, HTTPStatus.CONFLICT),
    (exceptions.HandlerError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (exceptions.UnknownRule, HTTPStatus.NOT_FOUND),
    (exceptions.TableChanged, HTTPStatus.PRECONDITION_FAILED),
    (exceptions.TablesUnsupported, HTTPStatus.NOT_IMPLEMENTED),
    (exceptions.PolicyError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (exceptions.RecordError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (exceptions.StaleGeneration, HTTPStatus.CONFLICT),
    (exceptions.JournalError, HTTPStatus.SERVICE_UNAVAILABLE),
    (exceptions.VnetError, HTTPStatus.INTERNAL_SERVER_ERROR),
)


class Problem(Exception):
    """Ends a request with `status`, and says why."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def answer(status: int, detail: str) -> web.Response:
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    data = msgspec.json.encode(body)
    return web.Response(status=status, body=data, content_type=CONTENT_TYPE)


@web.middleware
async def explain(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every error of every handler becomes a problem; what nobody foresaw is logged whole."""
    try:
        return await handler(request)
    except Problem as problem:
        return answer(problem.status, problem.detail)
    except web.HTTPException as error:
        return answer(error.status, f"{request.method} {request.path}: {error.reason}")
    except exceptions.VnetError as error:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        return answer(status, str(error))
    except Exception:
        LOG.exception("%s %s failed", request.method, request.path)
        detail = "The agent failed on this request; its log says where."
        return answer(HTTPStatus.INTERNAL_SERVER_ERROR, detail)
