"""A guest: defined on one host, booted, told what to do, moved to another."""

import contextlib
import pathlib
import xml.etree.ElementTree as ET

import libvirt

from .control import Control
from .domain import Nic, Spec, build_domain_xml, build_interface
from .host import CONSOLE_DIRECTORY, CONTROL_DIRECTORY, Host
from .image import Image
from .waiting import wait_until

LIVE_MIGRATION = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
)
#: Enough for one round of copying after the first. In every round QEMU's TCG can miss a page that
#: the guest writes just then, more likely the busier the machine is, and the guest's kernel then
#: panics at the destination. What is left after the first round takes a fraction of this to copy.
MAX_DOWNTIME_MS = 2000


class Guest:
    """A VM of the lab. `host` is where it is now; `control` commands the tool inside it."""

    def __init__(self, spec: Spec, image: Image, host: Host) -> None:
        self.spec = spec
        self.host = host
        self.control = Control(f"guest {spec.name}", lambda: self.control_socket)
        self._image = image

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def uuid(self) -> str:
        return self.spec.uuid

    @property
    def address(self) -> str:
        """The first address of its first port, without prefix."""
        return self.spec.nics[0].addresses[0].partition("/")[0]

    @property
    def domain(self) -> libvirt.virDomain:
        """libvirt's handle on the host where it is now; raises libvirtError when undefined."""
        return self.host.connect().lookupByUUIDString(self.spec.uuid)

    @property
    def control_socket(self) -> pathlib.Path:
        return self.host.path(f"{CONTROL_DIRECTORY}/{self.name}")

    @property
    def console(self) -> str:
        """What it printed on its console on this host."""
        log = self.host.path(f"{CONSOLE_DIRECTORY}/{self.name}.log")
        return log.read_text(errors="replace") if log.exists() else ""

    @property
    def active(self) -> bool:
        return bool(self.domain.isActive())

    def define(self) -> None:
        self.host.connect().defineXML(build_domain_xml(self.spec, self._image))

    def plug(self, host: Host) -> None:
        """Makes its taps on a host, as Nova does before a start or an incoming migration."""
        for nic in self.spec.nics:
            self._create_tap(host, nic)

    def unplug(self, host: Host) -> None:
        """Takes its taps away, as Nova does after it stopped or left."""
        for nic in self.spec.nics:
            host.delete_tap(nic.tap)

    def start(self) -> None:
        """Plugs and starts it; returns before it has booted: see `wait_ready`."""
        self.define()
        self.plug(self.host)
        self.domain.create()

    def wait_ready(self, timeout: float = 90.0) -> str:
        """Returns the boot's id once the tool inside answers."""
        answer = self.control.ask("stats", timeout=timeout)
        return str(answer["boot_id"])

    def reboot(self, timeout: float = 90.0) -> str:
        """Reboots it from inside and returns the new boot's id."""
        before = self.control.boot_id()
        self.control.send("reboot")
        return wait_until(
            lambda: new if (new := self.wait_ready(timeout)) != before else "",
            f"{self.name} did not reboot",
            timeout=timeout,
        )

    def power_off(self) -> None:
        """Powers it off from inside; libvirt says STOPPED/SHUTDOWN some time later."""
        self.control.send("poweroff")

    def panic(self) -> None:
        """Makes its kernel panic; what follows is the domain's on_crash."""
        self.control.send("panic")

    def destroy(self) -> None:
        """Takes the VM and its taps away from the host where it is, whatever state it is in."""
        if not self.host.running:
            return
        with contextlib.suppress(libvirt.libvirtError):
            self.domain.destroy()
        with contextlib.suppress(libvirt.libvirtError):
            self.domain.undefine()
        self.unplug(self.host)

    def attach(self, nic: Nic) -> None:
        """Hot-plugs a port. The guest gives it no address: those come from its boot's XML."""
        self._create_tap(self.host, nic)
        xml = ET.tostring(build_interface(nic), encoding="unicode")
        self.domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        self.spec.nics = [*self.spec.nics, nic]

    def detach(self, nic: Nic) -> None:
        """Asks for a port to be unplugged; DEVICE_REMOVED says when it was. Its tap stays."""
        xml = ET.tostring(build_interface(nic), encoding="unicode")
        self.domain.detachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        self.spec.nics = [other for other in self.spec.nics if other is not nic]

    def migrate(
        self, destination: Host, *, flags: int = LIVE_MIGRATION, plug: bool = True,
        unplug: bool = True, **parameters: object,
    ) -> None:  # fmt: skip
        """Moves it live, as Nova does: taps on the destination first, the source's go last.

        `parameters` are migrateToURI3's (bandwidth=MIB_PER_SECOND, ...). Blocks until libvirt is
        done; raises libvirtError when the migration failed, and the guest is then where it was.
        """
        source = self.host
        if plug:
            self.plug(destination)
        parameters = {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{destination.address}", **parameters}
        # On a connection of its own: before libvirt 10 the wake-up of a second thread's call can
        # be lost, and on a shared one that call would hang until the migration is over.
        with contextlib.closing(libvirt.open(source.uri)) as connection:
            domain = connection.lookupByUUIDString(self.uuid)
            domain.migrateSetMaxDowntime(MAX_DOWNTIME_MS)
            domain.migrateToURI3(destination.migration_uri, parameters, flags)
        self.host = destination
        if unplug:
            self.unplug(source)

    @staticmethod
    def _create_tap(host: Host, nic: Nic) -> None:
        host.create_tap(nic.tap, mtu=nic.mtu, queues=nic.queues, txqueuelen=nic.txqueuelen)
