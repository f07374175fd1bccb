"""HTTP for the other agents: who has an instance, and the sessions of this host as a source."""

import logging
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

import msgspec
from aiohttp import web

from vnet_agent import exceptions
from vnet_agent.migration import departure, messages, tls, wire
from vnet_agent.migration.destination import DestinationRunner
from vnet_agent.migration.libvirt_news import is_there
from vnet_agent.migration.runner import Context
from vnet_agent.migration.session import News
from vnet_agent.migration.source import SourceRunner, Write
from vnet_agent.model.port import Role

LOG = logging.getLogger(__name__)

T = TypeVar("T")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
#: Sessions that are remembered after their end, for a destination that asks late.
_REMEMBERED = 64
#: Sessions that may be open at once: what other agents can make this one hold is bounded.
_MOST = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}\Z")


class Problem(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Server:
    """Routes and the sources' sessions; `url` is where others reach it once it is started.

    `arrivals` are the migrations to this host, by instance, as they are at the time.
    """

    def __init__(self, context: Context, arrivals: Mapping[str, DestinationRunner]) -> None:
        self.context = context
        self._arrivals = arrivals
        self.url = ""
        self.sessions: dict[str, SourceRunner] = {}
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; VnetError when the configuration would let state cross a network in clear."""
        options = self.context.conf.migration
        tls.check_listen(self.context.conf)
        secure = tls.make_context(self.context.conf, server=True)
        app = web.Application(client_max_size=messages.MAX_BODY, middlewares=[_answer_problems])
        app.router.add_get("/v1/locate/{instance}", self._locate)
        app.router.add_post("/v1/sessions", self._open)
        app.router.add_get("/v1/sessions/{id}/stream", self._stream)
        app.router.add_get("/v1/sessions/{id}/frames", self._frames)
        app.router.add_post("/v1/sessions/{id}/flush", self._flush)
        app.router.add_post("/v1/sessions/{id}/relayed", self._relayed)
        app.router.add_post("/v1/sessions/{id}/finalize", self._finalize)
        app.router.add_post("/v1/sessions/{id}/imported", self._imported)
        app.router.add_post("/v1/sessions/{id}/active", self._active)
        app.router.add_delete("/v1/sessions/{id}", self._cancel)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, options.listen_address, options.listen_port, ssl_context=secure
        )
        try:
            await site.start()
        except OSError as error:
            raise exceptions.VnetError(
                detail=f"[migration] cannot listen on {options.listen_address}, port "
                f"{options.listen_port}: {error.strerror or error}"
            ) from error
        host, port = self._runner.addresses[0][:2]
        if ":" in host:
            host = f"[{host}]"
        self.url = options.advertise_url or f"{'https' if secure else 'http'}://{host}:{port}"

    async def close(self) -> None:
        for session in self.sessions.values():
            await session.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def of_instance(self, instance: str) -> list[SourceRunner]:
        """The sessions of an instance that are not over."""
        return [
            session
            for session in self.sessions.values()
            if session.report.instance == instance and not session.over
        ]

    def let_go(self, domain: str) -> None:
        """Before a QEMU opens the taps of the domain here: no other may have them open."""
        for session in self.sessions.values():
            if session.report.instance_name == domain:
                session.let_go()

    # -- routes

    async def _locate(self, request: web.Request) -> web.StreamResponse:
        instance = request.match_info["instance"]
        await self._check_leaves(instance, request.query.get("destination", ""))
        ports, _ = self._owned(instance)
        generation = max(port.generation for port in ports)
        return _json(
            messages.Located(
                instance=instance, host=self.context.host, url=self.url, generation=generation
            )
        )

    async def _open(self, request: web.Request) -> web.StreamResponse:
        body = await _decode(request, messages.OpenRequest)
        if not _NAME.match(body.session) or not _NAME.match(body.destination):
            raise Problem(400, "session and destination must be names of at most 253 characters")
        _check_name(request, body.destination)
        version = wire.negotiate(body.versions)
        if version is None:
            known = ", ".join(map(str, wire.VERSIONS))
            raise Problem(406, f"no common version of the stream; this agent speaks {known}")
        left = await self._check_leaves(body.instance, body.destination)
        known_session = self.sessions.get(body.session)
        if known_session is not None and not known_session.over:
            if known_session.report.destination != body.destination:
                raise Problem(409, "the session belongs to another destination")
            return _json(known_session.reply)
        ports, name = self._owned(body.instance)
        self._make_room(body.instance)
        arrival = self._arrivals.get(body.instance)
        settled = arrival.settled if arrival else None
        session = SourceRunner(self.context, body, ports, name, version, settled)
        self.sessions[body.session] = session
        session.start()
        if left:  # while this agent was away: libvirt does not say so again
            session.post(News.GUEST_GONE)
        return _json(session.reply)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        session, attempt = self._session(request), _number(request, "attempt")
        return await self._send(request, session, partial(session.send, attempt=attempt))

    async def _frames(self, request: web.Request) -> web.StreamResponse:
        session, attempt = self._session(request), _number(request, "attempt")
        send = partial(session.send_frames, attempt=attempt, number=_number(request, "from"))
        return await self._send(request, session, send)

    async def _send(
        self, request: web.Request, session: SourceRunner, send: Callable[[Write], Awaitable[None]]
    ) -> web.StreamResponse:
        """What `send` writes, until it is done or the destination goes."""
        response = web.StreamResponse(headers={"Content-Type": wire.CONTENT_TYPE})
        await response.prepare(request)
        _bound_silence(request, self.context.conf.migration.idle_timeout)
        try:
            await send(response.write)
            await response.write_eof()
        except ConnectionError:
            LOG.info("Migration %s: the destination closed its stream", session.report.id)
        return response

    async def _flush(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request)
        port, token = _number(request, "port"), _number(request, "token")
        if port >= len(session.reply.ports):
            raise Problem(400, f"port {port} of {len(session.reply.ports)}")
        await session.flush(port, token, last=bool(_number(request, "last")))
        return web.Response(status=204)

    async def _relayed(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._session(request).relayed())

    async def _finalize(self, request: web.Request) -> web.StreamResponse:
        self._session(request).post(News.FINAL_WANTED)
        return web.Response(status=204)

    async def _imported(self, request: web.Request) -> web.StreamResponse:
        return _json(self._session(request).imported())

    async def _active(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request)
        body = await _decode(request, messages.ActiveRequest)
        return _json(await session.active(left=body.left))

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        self._session(request).post(News.CANCELLED, "cancelled by the destination")
        return web.Response(status=204)

    # -- inside

    async def _check_leaves(self, instance: str, destination: str) -> bool:
        """Whether it has left. 404 unless the instance is leaving for the destination; 503 when
        libvirt is silent."""
        if self.context.find_domain is None:
            return False
        self._owned(instance)
        try:
            domain = await self.context.find_domain(instance)
        except exceptions.LibvirtError as error:
            raise Problem(503, f"libvirt does not say where the instance is: {error}") from error
        departures = [
            report
            for report in self.context.store.reports()
            if report.instance == instance and report.side == "source"
        ]
        if reason := departure.refusal(domain, departures, destination):
            raise Problem(404, f"instance {instance[:64]} {reason}")
        return not is_there(domain)

    def _owned(self, instance: str) -> tuple[tuple[wire.StreamPort, ...], str]:
        """Ports of an instance that runs here, and its name; 404 if it does not."""
        states = [
            state
            for state in self.context.inventory.of_instance(instance)
            if state.role is Role.ACTIVE
        ]
        if not states:
            raise Problem(404, f"instance {instance[:64]} has no active port on this host")
        ports = tuple(
            wire.StreamPort(uuid=state.port.uuid, mac=state.port.mac, generation=state.generation)
            for state in states
        )
        return ports, states[0].port.instance_name

    def _make_room(self, instance: str) -> None:
        """libvirt moves a domain one way at a time: an older session of it is over."""
        for session in self.of_instance(instance):
            session.post(News.CANCELLED, "a newer migration of the instance began")
        over = [name for name, each in self.sessions.items() if each.finished.is_set()]
        for name in over[:-_REMEMBERED]:
            del self.sessions[name]
        if len(self.sessions) - len(over) >= _MOST:
            raise Problem(503, f"{_MOST} migrations are going on")

    def _session(self, request: web.Request) -> SourceRunner:
        session = self.sessions.get(request.match_info["id"])
        if session is None:
            raise Problem(404, "no such session; this agent may have restarted")
        _check_name(request, session.report.destination)
        return session


def _number(request: web.Request, name: str) -> int:
    value = request.query.get(name, "0")
    if not re.fullmatch(r"[0-9]{1,12}", value):
        raise Problem(400, f"{name} must be a number")
    return int(value)


def _check_name(request: web.Request, destination: str) -> None:
    """Under TLS a session belongs to the host that the client's certificate names."""
    transport = request.transport
    if transport is None or transport.get_extra_info("sslcontext") is None:
        return
    names = tls.peer_names(transport.get_extra_info("peercert") or {})
    if destination.lower() not in names:
        raise Problem(403, f"the certificate is not that of {destination}")


def _bound_silence(request: web.Request, seconds: float) -> None:
    """A destination that died without a word must not hold the stream for a quarter hour."""
    raw = request.transport.get_extra_info("socket") if request.transport else None
    if raw is not None:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


async def _decode(request: web.Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, str(error)) from error


def _json(body: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


@web.middleware
async def _answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Problem as problem:
        status, title, detail = problem.status, "", problem.detail
    except web.HTTPException as error:
        status, title, detail = error.status, error.reason, ""
    body = messages.Problem(title=title or "Refused", status=status, detail=detail)
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/problem+json",
    )
