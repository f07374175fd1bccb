"""Around every request: failures become problems, and responses tell browsers to be strict."""

import logging
import time

from aiohttp import web
from aiohttp.typedefs import Handler
from sqlalchemy.exc import SQLAlchemyError

from vnet_controller.problem import CONTENT_TYPE, Problem
from vnet_controller.services import SERVICES
from vnet_controller.store.writer import Overloaded

LOG = logging.getLogger(__name__)

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'; require-trusted-types-for 'script'",
    "Server": "vnet-controller",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

#: Routes whose answers take as long as nothing happens.
_SLOW = (
    *("/v1/events/stream", "/v1/hosts/{host}/policy"),
    *("/v1/packet-ins/stream", "/v1/hosts/{host}/orders"),
)


async def harden_response(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


@web.middleware
async def guard_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    metrics = request.app[SERVICES].metrics
    started = time.monotonic()
    try:
        response = await handler(request)
    except Problem as problem:
        response = make_problem_response(problem)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = make_problem_response(_describe_http_error(request, error))
    except Overloaded:
        busy = Problem(503, "Too many writes wait already; nothing was stored.")
        response = make_problem_response(busy.retry_after(1))
    except SQLAlchemyError:
        LOG.exception("%s %s: the database failed", request.method, request.path)
        broken = Problem(503, "The database failed; nothing was stored. The log says more.")
        response = make_problem_response(broken.retry_after(5))
    except Exception:
        LOG.exception("%s %s failed", request.method, request.path)
        response = make_problem_response(Problem(500, "The controller failed; the log says more."))
    if response.status >= 400:
        metrics.problems.labels(status=response.status).inc()
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    if route not in _SLOW:
        method = request.method if resource is not None else "none"
        seconds = time.monotonic() - started
        metrics.requests.labels(method=method, route=route).observe(seconds)
    return response


def make_problem_response(problem: Problem) -> web.Response:
    return web.Response(
        status=problem.status,
        body=problem.body(),
        content_type=CONTENT_TYPE,
        headers=problem.headers,
    )


def _describe_http_error(request: web.Request, error: web.HTTPException) -> Problem:
    limit = request.app[SERVICES].conf.limits.body_size
    details = {
        404: "There is nothing at this address.",
        405: "This address does not take this method; the header Allow says which.",
        413: f"The body is larger than {limit} bytes.",
    }
    problem = Problem(error.status, details.get(error.status, error.reason))
    if "Allow" in error.headers:
        problem.headers["Allow"] = error.headers["Allow"]
    return problem
