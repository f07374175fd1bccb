"""One way to speak to the controller: addresses, certificates, time limits, errors."""

import ssl
from http import HTTPStatus
from typing import Any

import aiohttp
import msgspec
from oslo_config import cfg

from vnet_agent.exceptions import ControllerError

#: What the controller's own refusals are, and those of a proxy before it are not.
PROBLEM = "application/problem+json"
#: What decoding an answer can end with: bytes that are no text and towers of brackets too.
_NO_JSON = (msgspec.MsgspecError, ValueError, RecursionError)
_JSON = {"Content-Type": "application/json"}
#: Bytes of an answer that are read at most: a large fleet's policy stays far below.
_MAX_ANSWER = 64 << 20


class Answered(ControllerError):
    """The controller answered with an error, or something in its place did.

    `status` is HTTP's; `by_controller` says that the answer is a problem document (RFC 9457).
    """

    @property
    def is_unknown(self) -> bool:
        """Whether the controller does not know what was asked for; a proxy's 404 says nothing."""
        return bool(self.status == HTTPStatus.NOT_FOUND and self.by_controller)  # type: ignore[attr-defined]

    @property
    def is_final(self) -> bool:
        """Whether the same request will be refused for ever."""
        status: int = self.status  # type: ignore[attr-defined]
        if not self.by_controller:  # type: ignore[attr-defined]
            return False  # a proxy's 400 is about the way there: it can be mended
        return 400 <= status < 500 and status not in (
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.TOO_EARLY,
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.UNAUTHORIZED,  # certificates can be mended
            HTTPStatus.FORBIDDEN,
            HTTPStatus.NOT_FOUND,  # an older controller, or a proxy in its place
            HTTPStatus.METHOD_NOT_ALLOWED,
        )


class ControllerSession:
    """An HTTP session with the configured controller; made in the event loop, closed by `close`.

    `call` raises ControllerError, whatever goes wrong.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        options = conf.controller
        self._url: str = options.url.rstrip("/")
        self._timeout: float = options.timeout
        connector = aiohttp.TCPConnector(ssl=_make_context(conf))
        self._session = aiohttp.ClientSession(connector=connector)

    async def close(self) -> None:
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: dict[str, str] | None = None,
        wait: float = 0.0,
    ) -> Any:
        """The decoded JSON answer; `wait` is how long the controller itself may take, seconds.

        Raises Answered for an error status, ControllerError for everything else.
        """
        url = self._url + path
        data = None if body is None else msgspec.json.encode(body)
        timeout = aiohttp.ClientTimeout(total=self._timeout + wait)
        try:
            async with self._session.request(
                method,
                url,
                data=data,
                headers=_JSON,
                params=params,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                text = bytearray()
                async for piece in response.content.iter_any():
                    text += piece
                    if len(text) > _MAX_ANSWER:
                        raise ControllerError(url=url, detail="the answer is too long")
                if response.status >= 300:
                    detail = _explain(response.status, text)
                    raise Answered(
                        url=url,
                        detail=detail,
                        status=response.status,
                        by_controller=response.content_type == PROBLEM,
                    )
                return msgspec.json.decode(text)
        except TimeoutError:
            raise ControllerError(url=url, detail="no answer in time") from None
        except (aiohttp.ClientError, OSError, *_NO_JSON) as error:
            raise ControllerError(url=url, detail=str(error) or repr(error)) from None


def _explain(status: int, text: bytearray) -> str:
    try:
        problem = msgspec.json.decode(text, type=dict[str, Any])
        return f"{status}: {problem['detail']}"
    except (*_NO_JSON, KeyError):
        return f"{status}: {text[:200].decode(errors='replace')}"


def _make_context(conf: cfg.ConfigOpts) -> ssl.SSLContext | bool:
    options = conf.controller
    if not (options.ca_file or options.cert_file):
        return True
    try:
        context = ssl.create_default_context(cafile=options.ca_file or None)
        if options.cert_file:
            context.load_cert_chain(options.cert_file, options.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ControllerError(url=options.url, detail=f"certificates: {error}") from error
    return context
