"""Puts the product on a running lab and talks to it."""

import contextlib
import json
import os
import pathlib
import sys
import urllib.error
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from devstack.lab import CONTROLLER_ADDRESS, Guest, Host, Lab, LabError, Process, wait_until

from .api import Api

BIN = pathlib.Path(sys.prefix) / "bin"
HOOK = pathlib.Path(__file__).resolve().parents[2] / "etc/libvirt/hooks/qemu.d/vnet"
HOOK_COMMAND = ["/usr/bin/python3", "-I", "-S", str(HOOK)]
CONTROLLER_PORT = 7470
AGENT_PORT = 7471
UPLINK = "uplink0"

#: Shorter than an operator would choose, so that a test need not wait.
AGENT_OPTIONS: Mapping[str, Mapping[str, object]] = {
    "libvirt": {"resync_interval": 5},
    "datapath": {"uplinks": UPLINK, "collect_interval": 2},
    "migration": {"listen_port": AGENT_PORT, "insecure": True},
    "controller": {
        "url": f"http://{CONTROLLER_ADDRESS}:{CONTROLLER_PORT}",
        "heartbeat_interval": 1,
        "retry_max": 1,
    },
}

Result = TypeVar("Result")


def wait_for(condition: Callable[[], Result], what: str, timeout: float = 30.0) -> Result:
    """As the lab's wait_until, but an API or a program that does not answer yet is waited for."""

    def attempt() -> Result | None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, LabError):
            return condition()
        return None

    found = wait_until(attempt, what, timeout=timeout, pause=0.1)
    assert found is not None
    return found


class Cloud:
    """The product on `lab`. `options` are laid over AGENT_OPTIONS, group by group."""

    def __init__(
        self, lab: Lab, options: Mapping[str, Mapping[str, object]] | None = None
    ) -> None:
        self.lab = lab
        self.agents: dict[str, Process] = {}
        self.controller: Process | None = None
        self.api = Api("")
        self._options = options or {}

    # The controller

    def start_controller(self) -> None:
        """Starts it in its namespace, reachable at `self.api.url` from outside."""
        directory = self.lab.controller.directory
        config = directory / "controller.conf"
        write_config(
            config,
            {
                "DEFAULT": {
                    "listen_address": CONTROLLER_ADDRESS,
                    "listen_port": CONTROLLER_PORT,
                    "insecure": True,
                    "host_timeout": 5,
                },
                "database": {"connection": f"sqlite+aiosqlite:///{directory}/controller.db"},
            },
        )
        argv = [str(BIN / "vnet-controller"), "--config-file", str(config)]
        self.controller = self.lab.controller.spawn(argv, name="vnet-controller")
        if not self.api.url:
            self.api = Api(f"http://127.0.0.1:{self.lab.expose(CONTROLLER_PORT)}")
        self._wait_alive(self.controller, lambda: self.api.get("/readyz") or True)

    # The agents

    def configure_agent(self, host: Host, **options: Mapping[str, object]) -> None:
        """Writes the agent's configuration and libvirt's hook; `options` by group."""
        groups: dict[str, dict[str, object]] = {"DEFAULT": {"host": host.name}}
        for layer in (AGENT_OPTIONS, self._options, options):
            for group, values in layer.items():
                groups.setdefault(group, {}).update(values)
        groups["migration"].setdefault("listen_address", host.address)
        write_config(host.path("/etc/vnet/agent.conf"), groups)

    def start_agent(self, host: Host) -> Process:
        """Starts the agent of a host and returns when it answers."""
        argv = [str(BIN / "vnet-agent"), "--config-file", "/etc/vnet/agent.conf"]
        agent = host.spawn(argv, name="vnet-agent")
        self.agents[host.name] = agent
        self._wait_alive(agent, lambda: self.vnetctl(host, "status"))
        return agent

    def start(self) -> None:
        """The controller, and an agent with its hook on every host."""
        self.start_controller()
        for host in self.lab.hosts:
            host.install_hook(HOOK_COMMAND)
            self.configure_agent(host)
        for host in self.lab.hosts:
            self.start_agent(host)
        names = {host.name for host in self.lab.hosts}
        wait_for(
            lambda: names <= {seen["name"] for seen in self.api.get("/v1/hosts")["hosts"]},
            "the agents did not report to the controller",
        )

    def vnetctl(self, host: Host, *words: str) -> Any:
        """What `vnetctl WORDS -f json` says on a host, decoded; LabError with its complaint."""
        socket = host.path("/run/vnet/agent.sock")
        argv = [str(BIN / "vnetctl"), "--socket", str(socket), *words, "-f", "json"]
        done = host.run(argv)
        if done.returncode:
            raise LabError(f"vnetctl {' '.join(words)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def ports(self, host: Host) -> list[dict[str, Any]]:
        return list(self.vnetctl(host, "port", "list"))

    # Guests

    def boot(self, *guests: Guest) -> None:
        """Starts guests at the same time; returns when all answer and their ports are tagged."""
        for guest in guests:
            guest.start()
        for guest in guests:
            guest.wait_ready()
        for guest in guests:
            self.wait_tagged(guest)

    def wait_tagged(self, guest: Guest) -> None:
        taps = {nic.tap for nic in guest.spec.nics}
        wait_for(
            lambda: taps <= {tap for tap, alias in self.aliases(guest.host).items() if alias},
            f"the ports of {guest.name} were not tagged on {guest.host.name}",
        )

    @staticmethod
    def aliases(host: Host) -> dict[str, str]:
        """The alias of every interface of a host, empty where it has none."""
        done = host.run(["ip", "-json", "link", "show"])
        return {link["ifname"]: link.get("ifalias", "") for link in json.loads(done.stdout)}

    def put_group(self, name: str, rules: Iterable[Mapping[str, object]], **more: object) -> None:
        """Writes a policy group and returns when every agent has it in force."""
        group = {"rules": list(rules), "applies_to": ["*"], **more}
        revision = self.api.put(f"/v1/groups/{name}", group)["revision"]
        for host in self.lab.hosts:
            agent = self.agents.get(host.name)
            if agent and agent.alive:
                wait_for(
                    lambda host=host: self.vnetctl(host, "status")["policy_revision"] >= revision,
                    f"host {host.name} did not take over policy revision {revision}",
                )

    def wait_event(self, kind: str, subject: str, *, after: int = 0, timeout: float = 30.0) -> Any:
        """The first stored event of a type about an instance, behind the first `after` such."""

        def find() -> Any:
            found = [e for e in self.api.events(subject) if e["type"] == kind]
            return found[after] if len(found) > after else None

        return wait_for(find, f"the controller never stored {kind} of {subject}", timeout)

    def complaints(self) -> list[str]:
        """Errors that a program of ours logged, with its name; none in a run without faults."""
        logs = sorted(self.lab.workdir.glob("*/vnet-*.log"))
        return [
            f"{log.parent.name}/{log.name}: {line}"
            for log in logs
            for line in log.read_text(errors="replace").splitlines()
            if " ERROR " in line or " CRITICAL " in line or line.startswith("Traceback")
        ]

    def _wait_alive(self, process: Process, ready: Callable[[], object]) -> None:
        def attempt() -> object:
            if not process.alive:
                raise SystemExit(
                    f"{process.name} ended with {process.returncode}:\n{process.tail()}"
                )
            return ready()

        wait_for(attempt, f"{process.name} does not answer; its log is {process.log}")


def write_config(path: pathlib.Path, groups: Mapping[str, Mapping[str, object]]) -> None:
    """An oslo.config file, replaced as a whole."""
    lines: list[str] = []
    for group, values in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in values.items()), ""]
    made = path.with_suffix(".new")
    made.write_text("\n".join(lines))
    os.replace(made, path)
