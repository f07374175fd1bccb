"""Events go to the controller, which answers with those that it has on disk."""

from collections.abc import Sequence

import msgspec

from vnet_agent.controller.session import Answered, ControllerSession
from vnet_agent.events.sink import EventSink
from vnet_agent.exceptions import ControllerError, EventRefused
from vnet_agent.model.event import Event


class _Answer(msgspec.Struct):
    durable: set[str]


class ControllerSink(EventSink):
    """`POST /v1/events`; idle when no controller is configured."""

    _session: ControllerSession | None = None

    @property
    def is_enabled(self) -> bool:
        return bool(self._conf.controller.url)

    async def start(self) -> None:
        self._session = ControllerSession(self._conf)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def deliver(self, events: Sequence[Event]) -> set[str]:
        assert self._session is not None
        try:
            answer = await self._session.call("POST", "/v1/events", list(events))
            return msgspec.convert(answer, _Answer).durable
        except Answered as error:
            if error.is_final:
                raise EventRefused(detail=str(error)) from error
            raise
        except msgspec.ValidationError as error:
            url = f"{self._conf.controller.url}/v1/events"
            raise ControllerError(url=url, detail=f"strange answer: {error}") from None
