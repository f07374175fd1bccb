"""The main job, step by step; whoever runs it may be the demo or a test."""

import concurrent.futures
from collections.abc import Callable
from typing import Any

from devstack.cloud import Cloud, wait_for
from devstack.lab import Guest, Host, LabError, Peer

from .traffic import Traffic


class MainJob:
    """A VM that moves under traffic, one that reboots and one that crashes, on two hosts."""

    def __init__(self, cloud: Cloud, say: Callable[[str], None] = lambda text: None) -> None:
        self.cloud = cloud
        self.say = say
        self.a, self.b = cloud.lab.hosts
        self.web = cloud.lab.guest("web", self.a, ("10.0.0.5/24", "fd00::5/64"))
        self.reboots = cloud.lab.guest("reboots", self.b, ("10.0.0.6/24", "fd00::6/64"))
        self.crashes = cloud.lab.guest("crashes", self.b, ("10.0.0.7/24", "fd00::7/64"))
        self.peer: Peer
        self.traffic: Traffic
        self.reports: list[dict[str, Any]] = []

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """What to do, in order: the step's name and the step."""
        return [
            ("Start a controller and an agent on each host", self.cloud.start),
            ("Boot three VMs and a plain peer", self.boot),
            ("See every port tagged with its instance", self.check_tags),
            ("Open 200 TCP connections, half of them begun by the peer", self.open_traffic),
            ("Close the door: new connections refused, those that exist live", self.close_door),
            ("Reboot one VM from inside, crash another", self.reboot_and_crash),
            ("Live-migrate web from a to b under that traffic", lambda: self.migrate(self.b)),
            ("Live-migrate web from b back to a", lambda: self.migrate(self.a)),
            ("Compare what the controller stored with what happened", self.check_events),
        ]

    def boot(self) -> None:
        self.peer = self.cloud.lab.peer("peer", ("10.0.0.100/24", "fd00::100/64"))
        self.cloud.boot(self.web, self.reboots, self.crashes)
        self.traffic = Traffic(self.cloud, self.web, self.peer)

    def check_tags(self) -> None:
        for guest in (self.web, self.reboots, self.crashes):
            (nic,) = guest.spec.nics
            wanted = f"vnet instance={guest.uuid} port={nic.uuid}"
            found = self.cloud.aliases(guest.host).get(nic.tap)
            if found != wanted:
                raise LabError(f"tap {nic.tap} of {guest.name}: alias {found!r}, not {wanted!r}")
            self.say(f"{nic.tap}: {found}")

    def open_traffic(self) -> None:
        self.traffic.open()

    def close_door(self) -> None:
        self.traffic.close_door()

    def reboot_and_crash(self) -> None:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            rebooted = pool.submit(self.reboots.reboot)
            self.crashes.panic()
            self.cloud.wait_event("vnet.instance.crashed", self.crashes.uuid)
            rebooted.result()

    def migrate(self, destination: Host) -> None:
        """Moves the VM; returns when all its connections carry data there, or raises."""
        before = len(self.reports)
        self.web.migrate(destination)
        self.traffic.wait_progress(self.traffic.bundles)
        if ends := self.traffic.broken():
            raise LabError(f"connections broke on the way to {destination.name}: {ends}")
        completed = self.cloud.wait_event(
            "vnet.instance.migration.completed", self.web.uuid, after=before
        )
        report = completed["data"]
        self.reports.append(report)
        self.say(
            f"{report['connections_moved']} connections moved, the VM paused for "
            f"{report['vcpu_pause_ms']} ms, longest silence of a connection "
            f"{self.traffic.longest_gap_ms()} ms"
        )
        wait_for(
            lambda: (
                self.cloud.api.get(f"/v1/instances/{self.web.uuid}")["host"] == destination.name
            ),
            f"the controller does not say that web runs on {destination.name}",
        )

    def check_events(self) -> None:
        """The controller must have each of these events once, in this order, and no other."""
        wanted: dict[Guest, list[tuple[str, str | None]]] = {
            self.web: [("started", None)]
            + [("migration.started", None), ("migration.completed", None)] * len(self.reports),
            self.reboots: [("started", None), ("rebooted", None)],
            self.crashes: [("started", None), ("crashed", "guest")],
        }
        for guest, events in wanted.items():
            stored = [
                (event["type"].removeprefix("vnet.instance."), event["cause"])
                for event in self.cloud.api.events(guest.uuid)
                if event["type"].startswith("vnet.instance.")
            ]
            matches = len(stored) == len(events) and all(
                kind == seen and cause in (None, seen_cause)
                for (kind, cause), (seen, seen_cause) in zip(events, stored, strict=True)
            )
            if not matches:
                raise LabError(f"events of {guest.name}: {stored}, not {events}")
            self.say(f"{guest.name}: {', '.join(kind for kind, _ in stored)}")
        if complaints := self.cloud.complaints():
            raise LabError("errors were logged:\n" + "\n".join(complaints))
