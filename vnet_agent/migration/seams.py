"""What migration needs of the other rooms, as narrow as it is used."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from vnet_agent.model.event import Event, Type
from vnet_agent.model.migration import Report
from vnet_agent.model.port import Port, PortState
from vnet_agent.model.virt import DomainState

#: Ports of a domain XML; DomainXmlError when it is refused.
ParsePorts = Callable[[str], Sequence[Port]]
#: All domains of this host's libvirt, now.
ListDomains = Callable[[], Awaitable[Sequence[DomainState]]]
#: One of them with its job, None when it is not there; LibvirtError when nobody can say.
FindDomain = Callable[[str], Awaitable[DomainState | None]]


class Inventory(Protocol):
    def states(self) -> Sequence[PortState]: ...
    def of_instance(self, instance: str) -> Sequence[PortState]: ...
    async def prepare(self, ports: Sequence[Port], *, generation: int) -> None: ...
    async def activate(self, instance: str, *, generation: int) -> None: ...
    async def mark_moved(
        self, instance: str, *, generation: int, port: str | None = None
    ) -> None: ...
    async def set_generation(self, instance: str, *, generation: int) -> None: ...
    async def expect(self, instance: str, *, generation: int) -> None: ...
    async def release(self, instance: str, *, generation: int) -> None: ...
    def subscribe(self, callback: Callable[[], None]) -> object: ...


class EventLog(Protocol):
    async def emit(
        self,
        kind: Type,
        subject: str | None,
        data: dict[str, Any] | None = None,
        /,
        *,
        time_ns: int | None = None,
    ) -> Event: ...

    async def events(
        self,
        *,
        after: str | None = None,
        limit: int = 100,
        types: tuple[Type, ...] = (),
        subject: str | None = None,
    ) -> list[Event]: ...


class Controller(Protocol):
    async def locate(self, instance: str) -> tuple[str, str] | None: ...
    async def report_migration(self, report: Report) -> None: ...
