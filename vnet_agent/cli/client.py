"""The local API from a program that starts fast: synchronous HTTP on the agent's Unix socket."""

import configparser
import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from vnet_agent.exceptions import VnetError

CONFIG = "/etc/vnet/agent.conf"
SOCKET = "/run/vnet/agent.sock"
#: Seconds for an answer: loading policy into many ports takes its time.
TIMEOUT = 60.0

Query = dict[str, Any]


class AgentDown(VnetError):
    template = "The agent does not answer on %(socket)s (%(detail)s); is vnet-agent running?"


class Refused(VnetError):
    """The agent's own words."""


def find_socket() -> str:
    """Where the agent listens: $VNET_API_SOCKET, else as configured, else the default."""
    if path := os.environ.get("VNET_API_SOCKET"):
        return path
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
        parser.read(CONFIG, encoding="utf-8")
    return parser.defaults().get("api_socket", SOCKET)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("agent", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """Calls of the API. Raises AgentDown, or Refused with what the agent says is wrong."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, *parts: str, **query: Any) -> Any:
        with self._request("GET", parts, query) as response:
            return json.load(response)

    def put(self, *parts: str, body: bytes, match: str | None = None, **query: Any) -> Any:
        with self._request("PUT", parts, query, body, match=match) as response:
            return json.load(response)

    def post(
        self, *parts: str, body: bytes | BinaryIO, match: str | None = None, **query: Any
    ) -> Any:
        """`match` is the revision that the change is for."""
        with self._request("POST", parts, query, body, match=match) as response:
            return json.load(response)

    def delete(self, *parts: str, match: str | None = None, **query: Any) -> Any:
        with self._request("DELETE", parts, query, match=match) as response:
            return json.load(response)

    def download(self, *parts: str) -> Iterator[bytes]:
        with self._request("GET", parts, {}) as response:
            while piece := response.read(1 << 16):
                yield piece

    @contextlib.contextmanager
    def stream(self, *parts: str, **query: Any) -> Iterator[http.client.HTTPResponse]:
        """An answer that comes as long as it takes. An OSError within becomes AgentDown."""
        with self._request("GET", parts, query, timeout=None) as response:
            yield response

    def events(self, **query: Any) -> Iterator[dict[str, Any]]:
        """Events as they come; raises AgentDown when the agent ends the stream."""
        with self._request("GET", ("events", "stream"), query, timeout=None) as response:
            for line in response:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        raise AgentDown(socket=self.path, detail="it ended the stream")

    @contextlib.contextmanager
    def _request(
        self,
        method: str,
        parts: tuple[str, ...],
        query: Query,
        body: bytes | BinaryIO | None = None,
        *,
        match: str | None = None,
        timeout: float | None = TIMEOUT,
    ) -> Iterator[http.client.HTTPResponse]:
        path = "/v1/" + "/".join(quote(part, safe="") for part in parts)
        given = {name: value for name, value in query.items() if value not in (None, [])}
        if given:
            path += "?" + urlencode(given, doseq=True)
        headers = {} if match is None else {"If-Match": f'"{match}"'}
        connection = _UnixConnection(self.path, timeout)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise Refused(detail=_explain(response))
            yield response
        except (http.client.HTTPException, OSError, ValueError) as error:
            detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise AgentDown(socket=self.path, detail=_one_line(detail)) from None
        finally:
            connection.close()


def _explain(response: http.client.HTTPResponse) -> str:
    text = response.read(1 << 16)
    try:
        return _one_line(json.loads(text)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"The agent answered {response.status} {response.reason}"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
