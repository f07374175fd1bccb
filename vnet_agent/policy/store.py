"""The groups in force on this host: kept over restarts, and resolved into each port's policy."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec
from oslo_config import cfg

from vnet_agent.exceptions import PolicyChanged, PolicyError
from vnet_agent.files import replace_file
from vnet_agent.model.policy import ALLOW_ALL, DENY_ALL, Established, Group, Policy, Rule
from vnet_agent.model.port import Port
from vnet_agent.policy import document
from vnet_agent.policy.limits import merge_limits
from vnet_agent.policy.members import MemberFile, Members

LOG = logging.getLogger(__name__)

OnChange = Callable[[], Awaitable[None]]


class _State(msgspec.Struct, kw_only=True):
    """What `policy.json` in the state directory holds; `marks` are by origin."""

    version: int = 1
    origin: str = ""
    groups: tuple[Group, ...] = ()
    marks: dict[str, str] = {}


def digest(groups: object) -> str:
    """A short text that is the same for the same groups only."""
    return hashlib.sha256(msgspec.json.encode(groups, order="deterministic")).hexdigest()


class PolicyStore:
    """One set of groups; the last change wins, whoever made it, and a restart is no change.

    What an origin gave last has a mark, so that it is known again after a restart: what was
    loaded by hand since then stays.

    `on_change`, if set, is awaited after each change, and makes it true in the datapath.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._path = Path(conf.state_dir) / "policy.json"
        self._file: str = conf.policy.file
        self._unbound = ALLOW_ALL if conf.policy.unbound == "allow" else DENY_ALL
        self._lock = asyncio.Lock()
        self._member_file = MemberFile(Path(conf.state_dir) / "members.json")
        self._elsewhere: Members = {}
        self._take(_State())
        self.on_change: OnChange | None = None

    @property
    def origin(self) -> str:
        """Who gave what is in force: `file`, `api`, `controller`, or empty for nobody yet."""
        return self._state.origin

    def groups(self) -> tuple[Group, ...]:
        return self._state.groups

    def mark(self, origin: str) -> str:
        """The mark of what the origin gave last, empty if it gave nothing yet."""
        return self._state.marks.get(origin, "")

    @property
    def revision(self) -> str:
        """A short text that another set of groups, or another origin, does not have."""
        return self._revision

    @property
    def member_groups(self) -> Mapping[str, tuple[str, ...]]:
        """The groups whose members rules ask for, with the members that are named by address."""
        return self._member_groups

    def members_elsewhere(self, name: str) -> Mapping[int, Collection[str]]:
        """Members of a group on all hosts, by network, as the controller knows them."""
        return self._elsewhere.get(name, {})

    async def replace_members(self, members: Members) -> None:
        """Take `members` as all that there are on all hosts; raises as `replace`."""
        await asyncio.shield(self._replace_members(members, whole=True))

    async def add_members(self, members: Members) -> None:
        """Take `members` as those of the groups that it names; others keep theirs."""
        await asyncio.shield(self._replace_members(members, whole=False))

    async def _replace_members(self, members: Members, *, whole: bool) -> None:
        async with self._lock:
            members = members if whole else {**self._elsewhere, **members}
            if members == self._elsewhere:
                return
            await asyncio.to_thread(self._member_file.write, members)
            self._elsewhere = members
            await self._changed()

    def groups_of(self, port: Port) -> list[Group]:
        """The groups that apply to the port, in their order."""
        return [group for _, group in self._ranked(port)]

    def _ranked(self, port: Port) -> list[tuple[int, Group]]:
        """The same, each with a number that is higher the closer its selector names the port."""
        selectors = ["*"] if port.project is None else ["*", f"project:{port.project}"]
        selectors += [f"instance:{port.instance}", f"port:{port.uuid}"]
        ranks = {
            number: rank
            for rank, key in enumerate(selectors)
            for number in self._index.get(key, ())
        }
        return [(ranks[number], self._state.groups[number]) for number in sorted(ranks)]

    def resolve(self, port: Port) -> Policy:
        """The union of the rules of all groups that apply to the port, in the groups' order.

        A group with limits and no rules does not say who may talk: its limits hold, and the rest
        is as without it.
        """
        ranked = self._ranked(port)
        groups = [group for _, group in ranked if group.rules or not group.limits]
        limits = merge_limits(ranked)
        if not groups:
            return msgspec.structs.replace(self._unbound, limits=limits)
        rules: dict[Rule, None] = {rule: None for group in groups for rule in group.rules}
        keep = all(group.established is Established.KEEP for group in groups)
        return Policy(
            rules=tuple(rules),
            established=Established.KEEP if keep else Established.RECHECK,
            limits=limits,
        )

    async def load(self) -> None:
        """At start: what was in force before, then the configured file if it has changed.

        A bad file is only logged when an earlier policy is there to stay in force; otherwise, and
        when the stored policy cannot be read, PolicyError is raised: starting with every port
        open is no answer to a damaged policy.
        """
        self._elsewhere = await asyncio.to_thread(self._member_file.read)
        found = await asyncio.to_thread(self._read_state)
        if found is not None:
            self._take(found)
        try:
            await self.load_file(again=False)
        except PolicyError as error:
            if found is None:
                raise
            LOG.error("%s", error)

    async def load_file(self, *, again: bool = True) -> bool:
        """Read the configured file; False if none is configured. PolicyError: old stays.

        Unless `again`, a file that says what it said when it was loaded last changes nothing.
        """
        if not self._file:
            return False
        groups = await asyncio.to_thread(self._read_file)
        mark = digest(groups)
        if again or mark != self.mark("file"):
            await self.replace(groups, origin="file", mark=mark)
        return True

    async def replace(
        self,
        groups: Sequence[Group],
        *,
        origin: str,
        mark: str = "",
        revision: str | None = None,
    ) -> None:
        """Put `groups` in force and keep them over a restart; `mark` tells them from later ones.

        With `revision`, only in place of the groups of that revision. Raises PolicyChanged when
        they are not in force any more; PolicyError, or what `on_change` raised, and the old groups
        are then in force again.
        """
        await asyncio.shield(self._replace(tuple(groups), origin, mark, revision))

    async def _replace(
        self, groups: tuple[Group, ...], origin: str, mark: str, revision: str | None
    ) -> None:
        async with self._lock:
            if revision not in (None, self._revision):
                raise PolicyChanged
            old = self._state
            marks = old.marks | ({origin: mark} if mark else {})
            new = _State(origin=origin, groups=groups, marks=marks)
            if new.groups == old.groups and new.origin == old.origin:
                if marks != old.marks:
                    await self._save(new)
                    self._take(new)
                return
            self._check_names(new)
            await self._save(new)
            self._take(new)
            try:
                await self._changed()
            except Exception:
                self._take(old)
                await self._restore(old)
                raise
            rules = sum(len(group.rules) for group in new.groups)
            LOG.info("Policy of %s: %d groups, %d rules", new.origin, len(new.groups), rules)

    async def _restore(self, old: _State) -> None:
        try:
            await self._save(old)
            await self._changed()
        except Exception:
            LOG.exception("Putting the old policy back in force failed")

    async def _changed(self) -> None:
        if self.on_change is not None:
            await self.on_change()

    @staticmethod
    def _check_names(state: _State) -> None:
        names = [group.name for group in state.groups]
        for name in names:
            if names.count(name) > 1:
                raise PolicyError(where=state.origin, detail=f"group {name!r} is defined twice")

    def _take(self, state: _State) -> None:
        index: dict[str, list[int]] = {}
        for number, group in enumerate(state.groups):
            for selector in group.applies_to:
                index.setdefault(selector, []).append(number)
        named = {rule.remote_group for group in state.groups for rule in group.rules}
        members = {group.name: group.members for group in state.groups}
        self._state = state
        self._index = index
        self._member_groups = {name: members.get(name, ()) for name in named if name}
        self._revision = digest((state.origin, state.groups))[:16]

    async def _save(self, state: _State) -> None:
        try:
            await asyncio.to_thread(replace_file, self._path, msgspec.json.encode(state))
        except OSError as error:
            raise PolicyError(
                where=str(self._path), detail=f"cannot be written: {error}"
            ) from None

    def _read_state(self) -> _State | None:
        try:
            state = msgspec.json.decode(self._path.read_bytes(), type=_State)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            detail = f"cannot be read ({error}); remove it to start with no policy"
            raise PolicyError(where=str(self._path), detail=detail) from None
        groups = document.groups_from_json(
            msgspec.to_builtins(state.groups), where=f"{self._path}: $.groups"
        )
        return _State(origin=state.origin, groups=groups, marks=state.marks)

    def _read_file(self) -> tuple[Group, ...]:
        try:
            text = Path(self._file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyError(where=f"{self._file}:1", detail=f"cannot be read: {error}") from None
        return document.parse(text, name=self._file)
