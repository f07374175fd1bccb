"""The other agent, as the destination of a migration speaks to it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from oslo_config import cfg

from vnet_agent.migration import messages, tls, wire

T = TypeVar("T")

#: Characters of another agent's reason that are kept: it ends up in a report and in an event.
_MOST_DETAIL = 500
#: What decoding JSON can end with: bytes that are no text and towers of brackets too.
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
#: What a request can end with besides an answer.
ERRORS = (aiohttp.ClientError, TimeoutError, OSError, *_NO_JSON)


class Refused(Exception):
    """The other agent answered, and the answer is no."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail


class Client:
    """Makes requests; one for the whole agent."""

    def __init__(self, conf: cfg.ConfigOpts, context: ssl.SSLContext | None) -> None:
        self._conf = conf
        self._context = context
        self._http = aiohttp.ClientSession(auto_decompress=False)

    async def close(self) -> None:
        await self._http.close()

    def peer(self, url: str, host: str = "") -> "Peer":
        """The agent at `url`; under TLS its certificate must name `host`, if that is known.

        Raises VnetError for a URL that must not be used.
        """
        tls.check_url(self._conf, url)
        secure: dict[str, Any] = {}
        if self._context is not None and url.startswith("https:"):
            secure = {"ssl": self._context, "server_hostname": host or None}
        return Peer(self._conf, self._http, url.rstrip("/"), secure)


class Peer:
    """All methods raise Refused, or one of ERRORS."""

    def __init__(
        self, conf: cfg.ConfigOpts, http: aiohttp.ClientSession, url: str, secure: dict[str, Any]
    ) -> None:
        self.url = url
        self._conf = conf
        self._http = http
        self._secure = secure

    async def locate(self, instance: str, destination: str) -> messages.Located | None:
        """Asked by the agent of the host `destination`."""
        path = f"/v1/locate/{instance}?destination={quote(destination)}"
        try:
            return await self._call("GET", path, reply=messages.Located)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    async def open(self, request: messages.OpenRequest) -> messages.OpenReply:
        return await self._call("POST", "/v1/sessions", request, reply=messages.OpenReply)

    async def finalize(self, session: str) -> None:
        await self._call("POST", f"/v1/sessions/{session}/finalize")

    async def imported(self, session: str) -> messages.ImportedReply:
        path = f"/v1/sessions/{session}/imported"
        return await self._call("POST", path, reply=messages.ImportedReply)

    async def active(self, session: str, *, left: bool) -> messages.ActiveReply:
        path = f"/v1/sessions/{session}/active"
        body = messages.ActiveRequest(left=left)
        return await self._call("POST", path, body, reply=messages.ActiveReply, wait=True)

    async def flush(self, session: str, port: int, token: int, *, last: bool) -> None:
        """Let the source put a MARK behind all the frames that it has for one of its ports, by
        its place in the HELLO; see wire.Mark."""
        query = f"port={port}&token={token}&last={int(last)}"
        await self._call("POST", f"/v1/sessions/{session}/flush?{query}")

    async def relayed(self, session: str) -> messages.RelayedReply:
        path = f"/v1/sessions/{session}/relayed"
        return await self._call("POST", path, reply=messages.RelayedReply)

    async def cancel(self, session: str) -> None:
        await self._call("DELETE", f"/v1/sessions/{session}")

    @asynccontextmanager
    async def stream(
        self, session: str, attempt: int, *, frames_from: int | None = None
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The bytes of a stream; TimeoutError when none came for the idle time-out.

        With `frames_from` that of the VM's frames, from this number on.
        """
        what, query = "stream", {"attempt": str(attempt)}
        if frames_from is not None:
            what, query = "frames", {**query, "from": str(frames_from)}
        options = self._conf.migration
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=options.prepare_timeout, sock_read=options.idle_timeout
        )
        async with self._http.get(
            f"{self.url}/v1/sessions/{session}/{what}",
            params=query,
            headers={"Accept": wire.CONTENT_TYPE},
            timeout=timeout,
            **self._secure,
        ) as response:
            await self._check(response)
            yield response.content

    async def _call(
        self,
        method: str,
        path: str,
        body: msgspec.Struct | None = None,
        *,
        reply: type[T] | None = None,
        wait: bool = False,
    ) -> T:
        options = self._conf.migration
        seconds = options.idle_timeout if wait else options.prepare_timeout
        async with self._http.request(
            method,
            self.url + path,
            data=None if body is None else msgspec.json.encode(body),
            headers={"Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=seconds),
            **self._secure,
        ) as response:
            await self._check(response)
            if reply is None:
                return None  # type: ignore[return-value]
            return msgspec.json.decode(await _read(response), type=reply)

    @staticmethod
    async def _check(response: aiohttp.ClientResponse) -> None:
        if response.status < 300:
            return
        try:
            problem = msgspec.json.decode(await _read(response), type=messages.Problem)
            detail = problem.detail or problem.title
        except _NO_JSON:
            detail = response.reason or ""
        raise Refused(response.status, detail[:_MOST_DETAIL])


async def _read(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.content.readexactly(messages.MAX_BODY + 1)
    except asyncio.IncompleteReadError as whole:
        return whole.partial
