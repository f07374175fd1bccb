"""What the agent tells the controller, and asks of it, besides events.

The controller may be away at any time: everything here runs beside the agent's work, tries again,
and says so once.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol
from urllib.parse import quote

import msgspec
from oslo_config import cfg

from vnet_agent.controller.session import Answered, ControllerSession
from vnet_agent.events.journal import format_time
from vnet_agent.exceptions import ControllerError, VnetError
from vnet_agent.model.migration import Report
from vnet_agent.model.policy import Group
from vnet_agent.model.port import PortState
from vnet_agent.policy import document
from vnet_agent.policy.members import Members, members_from_json
from vnet_agent.policy.store import digest
from vnet_agent.retry import Retry
from vnet_agent.version import version

LOG = logging.getLogger(__name__)

#: Who a policy of the controller is from, in the store.
ORIGIN = "controller"
#: Seconds from a change of the inventory to the snapshot that tells of it.
DEBOUNCE = 0.1
#: Seconds between snapshots without a change.
SNAPSHOT_PERIOD = 30.0
#: Seconds that the controller may hold a question for new policy.
POLICY_WAIT = 30
#: Reports that wait for the controller; beyond that the oldest are dropped.
MAX_REPORTS = 1000


class Inventory(Protocol):
    def states(self) -> Sequence[PortState]: ...
    def subscribe(self, callback: Callable[[], None]) -> object: ...


class PolicyStore(Protocol):
    def mark(self, origin: str) -> str: ...
    async def replace(self, groups: Sequence[Group], *, origin: str, mark: str = "") -> None: ...
    async def replace_members(self, members: Members) -> None: ...
    async def add_members(self, members: Members) -> None: ...


class _Policy(msgspec.Struct):
    revision: int
    groups: list[Any]
    members: Any = None


class _Members(msgspec.Struct):
    digest: str
    revision: int
    members: Any


class ControllerClient:
    """Heartbeats, inventory snapshots, migration reports, policy, and where instances are.

    `epoch` gives the event journal's. Make it only where [controller] url is set.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        *,
        inventory: Inventory,
        policy: PolicyStore,
        epoch: Callable[[], int],
    ) -> None:
        self._conf = conf
        self._host: str = conf.host
        self._path = f"/v1/hosts/{quote(conf.host, safe='')}"
        self._inventory = inventory
        self._policy = policy
        self._epoch = epoch
        self._started = format_time(time.time_ns())
        self._session: ControllerSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._reports: dict[str, Report] = {}
        self._has_reports = asyncio.Event()
        self._is_changed = asyncio.Event()
        self._revision = 0
        self._policy_mark = ""
        self._turns: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._members_digest = ""
        self.is_reachable = False
        #: Where other agents fetch the state of ports; the migration server may know better.
        self.migration_url = _migration_url(conf)
        #: What the heartbeat tells of the datapath.
        self.datapath: Callable[[], dict[str, Any]] = lambda: {"driver": conf.datapath.driver}

    async def start(self) -> None:
        """Begin; returns at once, whether the controller is there or not."""
        self._session = ControllerSession(self._conf)
        self._policy_mark = self._policy.mark(ORIGIN)
        revision = self._policy_mark.partition(":")[0]
        self._revision = int(revision) if revision.isdecimal() else 0
        self._inventory.subscribe(self._is_changed.set)
        for name, turn in (
            ("Heartbeat to the controller", self._beat),
            ("Inventory to the controller", self._send_inventory),
            ("Migration reports to the controller", self._send_reports),
            ("Policy from the controller", self._fetch_policy),
            ("Members of groups from the controller", self._fetch_members),
            *self._turns,
        ):
            self._tasks.append(asyncio.create_task(self._repeat(name, turn), name=name))

    def add_turn(self, name: str, turn: Callable[[], Awaitable[None]]) -> None:
        """Repeat the turn from `start` on, with pauses after a failure."""
        self._turns.append((name, turn))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def status(self) -> dict[str, Any]:
        return {
            "url": self._conf.controller.url,
            "reachable": self.is_reachable,
            "policy_revision": self._revision,
            "reports_waiting": len(self._reports),
        }

    # -- for the rest of the agent

    async def call_host(self, method: str, path: str, body: Any = None, **how: Any) -> Any:
        """Ask about this host: `path` is below its own. Raises ControllerError."""
        return await self._call(method, self._path + path, body, **how)

    async def locate(self, instance: str) -> tuple[str, str] | None:
        """Host and migration URL of the agent that has the VM; None if nobody can tell now."""
        try:
            found = await self._find(instance)
        except ControllerError as error:
            LOG.warning("Where instance %s is cannot be told: %s", instance, error)
            return None
        if found is None or not found.get("host") or not found.get("migration_url"):
            return None
        return str(found["host"]), str(found["migration_url"])

    async def is_elsewhere(self, instance: str) -> bool | None:
        """Whether the VM is known to be on another host; None if the controller is away."""
        try:
            found = await self._find(instance)
        except ControllerError:
            return None
        return found is not None and found.get("host") not in (None, self._host)

    async def report_migration(self, report: Report) -> None:
        """Hand a report over; it is sent in the background until the controller has it."""
        self._reports.pop(report.id, None)
        self._reports[report.id] = msgspec.json.decode(msgspec.json.encode(report), type=Report)
        if len(self._reports) > MAX_REPORTS:
            dropped = next(iter(self._reports))
            del self._reports[dropped]
            LOG.error("The report of migration %s is not sent: too many are waiting", dropped)
        self._has_reports.set()

    async def _find(self, instance: str) -> dict[str, Any] | None:
        try:
            found = await self._call("GET", f"/v1/instances/{quote(instance, safe='')}")
        except Answered as error:
            if error.is_unknown:
                return None
            raise
        if not isinstance(found, dict):
            raise ControllerError(url=self._conf.controller.url, detail="strange answer")
        return found

    async def _call(self, method: str, path: str, body: Any = None, **how: Any) -> Any:
        if self._session is None:
            raise ControllerError(url=self._conf.controller.url, detail="not started")
        answer = await self._session.call(method, path, body, **how)
        self.is_reachable = True
        return answer

    # -- the tasks

    async def _repeat(self, name: str, turn: Callable[[], Awaitable[None]]) -> None:
        options = self._conf.controller
        retry = Retry(LOG, name, low=options.retry_min, high=options.retry_max)
        while True:
            problem: Exception | None = None
            try:
                await turn()
            except Exception as error:
                problem = error
            if problem is None:
                retry.succeeded()
                continue
            if isinstance(problem, ControllerError) and not isinstance(problem, Answered):
                self.is_reachable = False
            if not isinstance(problem, VnetError):
                LOG.debug("%s", name, exc_info=problem)
            await retry.failed(str(problem) or repr(problem))

    async def _beat(self) -> None:
        beat = {
            "version": version(),
            "epoch": self._epoch(),
            "migration_url": self.migration_url,
            "started": self._started,
            "datapath": self.datapath(),
        }
        await self._call("PUT", self._path, beat)
        await asyncio.sleep(self._conf.controller.heartbeat_interval * random.uniform(0.9, 1.1))

    async def _send_inventory(self) -> None:
        self._is_changed.clear()
        ports = [_show(state) for state in self._inventory.states()]
        try:
            await self._call("PUT", f"{self._path}/ports", {"ports": ports})
        except ControllerError:
            self._is_changed.set()
            raise
        try:
            async with asyncio.timeout(SNAPSHOT_PERIOD):
                await self._is_changed.wait()
            await asyncio.sleep(DEBOUNCE)
        except TimeoutError:
            pass

    async def _send_reports(self) -> None:
        await self._has_reports.wait()
        while self._reports:
            report = next(iter(self._reports.values()))
            body = msgspec.to_builtins(report) | {"host": self._host}
            try:
                await self._call("PUT", f"/v1/migrations/{quote(report.id, safe='')}", body)
            except Answered as error:
                if not error.is_final:
                    raise
                LOG.error("The report of migration %s is refused: %s", report.id, error)
            if self._reports.get(report.id) is report:
                del self._reports[report.id]
        self._has_reports.clear()

    async def _fetch_policy(self) -> None:
        """One question; the controller answers when it has another revision than ours."""
        before = asyncio.get_running_loop().time()
        params = {"after": str(self._revision), "wait": str(POLICY_WAIT)}
        answer = await self._call("GET", f"{self._path}/policy", params=params, wait=POLICY_WAIT)
        try:
            policy = msgspec.convert(answer, _Policy)
        except msgspec.ValidationError as error:
            url = self._conf.controller.url
            raise ControllerError(url=url, detail=f"strange policy: {error}") from None
        # A controller with a new database may count to the revision that is held here, of
        # another policy: what it says is compared too.
        mark = f"{policy.revision}:{await asyncio.to_thread(digest, policy.groups)}"
        if mark != self._policy_mark:
            await self._take(policy, mark)
        elif asyncio.get_running_loop().time() - before < 1.0:
            await asyncio.sleep(1.0)  # one that does not wait must not be asked without a pause

    async def _fetch_members(self) -> None:
        """One question; the controller answers when it has others than it told last."""
        before = asyncio.get_running_loop().time()
        params = {"after": self._members_digest, "wait": str(POLICY_WAIT)}
        try:
            answer = await self._call(
                "GET", f"{self._path}/members", params=params, wait=POLICY_WAIT
            )
        except Answered as error:
            if not error.is_unknown:
                raise
            await asyncio.sleep(POLICY_WAIT)  # one from before there were members to tell
            return
        try:
            told = msgspec.convert(answer, _Members)
        except msgspec.ValidationError as error:
            url = self._conf.controller.url
            raise ControllerError(url=url, detail=f"strange members: {error}") from None
        if told.digest != self._members_digest:
            # As with policy: one that never had a group takes nothing away.
            if told.revision > 0:
                members = await asyncio.to_thread(members_from_json, told.members)
                await self._policy.replace_members(members)
            self._members_digest = told.digest
        elif asyncio.get_running_loop().time() - before < 1.0:
            await asyncio.sleep(1.0)

    async def _take(self, policy: _Policy, mark: str) -> None:
        # Revision 0 is a controller that never had a policy: what this host has stays.
        if policy.revision > 0:
            groups = await asyncio.to_thread(
                document.groups_from_json, policy.groups, where="the controller's $.groups"
            )
            if policy.members is not None:  # before the rules that ask for them
                members = await asyncio.to_thread(members_from_json, policy.members)
                await self._policy.add_members(members)
            await self._policy.replace(groups, origin=ORIGIN, mark=mark)
        self._revision, self._policy_mark = policy.revision, mark


def _show(state: PortState) -> dict[str, Any]:
    port: dict[str, Any] = msgspec.to_builtins(state.port)
    return port | {
        "role": state.role.value,
        "generation": state.generation,
        "tagged": state.tagged,
        "ifindex": state.ifindex,
    }


def _migration_url(conf: cfg.ConfigOpts) -> str:
    options = conf.migration
    if options.advertise_url:
        return str(options.advertise_url).rstrip("/")
    scheme = "https" if options.cert_file else "http"
    address = options.listen_address
    return f"{scheme}://{f'[{address}]' if ':' in address else address}:{options.listen_port}"
