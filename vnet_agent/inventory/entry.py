"""One port as the inventory holds it, and as it shows it to the rest of the agent."""

import dataclasses

from vnet_agent.model.policy import Policy
from vnet_agent.model.port import Port, PortState, Role


@dataclasses.dataclass(slots=True)
class Entry:
    """The inventory's record of a port; only the inventory changes it, under its lock.

    `known` is False for a port that was adopted from the datapath and has not been seen in a
    domain XML yet: its tap's name, project and so on are then not known. `policy` is what the
    datapath was given last in this process. `touched` is the inventory's sequence number of the
    last change by an operation: a listing that was begun before does not overrule it. Times are
    of the event loop's clock, in seconds: until `held_until` the port stays although its domain
    may be away, `missing_since` is when a listing first missed it.
    """

    port: Port
    role: Role
    generation: int
    local_id: int | None = None
    ifindex: int | None = None
    tagged: bool = False
    known: bool = True
    policy: Policy | None = None
    touched: int = 0
    held_until: float = 0.0
    missing_since: float | None = None
    retags: int = 0

    def state(self) -> PortState:
        return PortState(
            port=self.port,
            role=self.role,
            generation=self.generation,
            ifindex=self.ifindex,
            tagged=self.tagged,
            local_id=self.local_id,
        )
