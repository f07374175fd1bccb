"""A compute host: namespaces of its own, in them a real libvirtd, and whatever the test starts."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

import libvirt

from . import libvirt_files
from .cache import cache_directory
from .errors import LabError
from .fabric import DATA, MANAGEMENT, MANAGEMENT_PREFIX, Fabric
from .netns import Namespace
from .process import Process, end_recorded, start_inside, start_recorded
from .state import State
from .waiting import wait_until

UPLINK = "uplink0"
MANAGEMENT_DEVICE = "mgmt0"
PID1 = pathlib.Path(__file__).with_name("pid1.py")
#: Directories of which each host has its own; they last over a crash, except those in /run.
PRIVATE = (
    "/etc/libvirt",
    "/etc/vnet",
    "/run/libvirt",
    "/run/vnet",
    "/var/cache/libvirt",
    "/var/lib/libvirt",
    "/var/lib/vnet",
    "/var/log/libvirt",
)
#: Inside a host: sockets of its guests' control channels, and their consoles.
CONTROL_DIRECTORY = "/run/libvirt/lab"
CONSOLE_DIRECTORY = "/var/log/libvirt/lab"
#: A Unix socket's path has room for this many bytes.
SOCKET_PATH_LIMIT = 107


class Host:
    """One compute host. Everything blocks; from asyncio call it through `asyncio.to_thread`.

    `name` is its hostname, `address` the one on the management network (agents and libvirt meet
    there), `uplink0` its device on the data network.
    """

    def __init__(self, state: State, fabric: Fabric, name: str, number: int) -> None:
        self.name = name
        self.address = f"{MANAGEMENT_PREFIX}.{10 + number}"
        self.namespace = Namespace(state, name)
        self.directory = self.namespace.directory
        self._state = state
        self._fabric = fabric
        self._pid1: Process | None = None
        self._init_pid = 0
        self._libvirtd: Process | None = None
        self._connection: libvirt.virConnect | None = None
        self._lock = threading.RLock()
        if len(str(self.path("/run/libvirt/libvirt-sock"))) > SOCKET_PATH_LIMIT - 20:
            raise LabError(f"the path of {state.workdir} is too long for Unix sockets below it")

    # The machine

    @property
    def running(self) -> bool:
        return self._pid1 is not None and self._pid1.alive

    def start(self) -> None:
        """Powers the host on; returns when libvirtd answers. Nothing happens when it is on."""
        with self._lock:
            if self.running:
                return
            self._remove_remains()
            self._make_directories()
            self.namespace.create()
            self._fabric.connect(self.namespace, UPLINK, DATA)
            self._fabric.connect(self.namespace, MANAGEMENT_DEVICE, MANAGEMENT)
            self.namespace.ip(f"addr add {self.address}/24 dev {MANAGEMENT_DEVICE}")
            self._start_pid1()
            self.start_libvirtd()

    def stop(self) -> None:
        """Pulls the plug: every process in it, its network and its taps are gone on return."""
        with self._lock:
            self._drop_connection()
            if self._pid1:
                end_recorded(self._state, self._pid1)
            self._pid1 = self._libvirtd = None
            self._init_pid = 0
            self._remove_remains()

    def path(self, inside: str) -> pathlib.Path:
        """Where a file in one of the private directories is, seen from outside."""
        for private in PRIVATE:
            if inside == private or inside.startswith(private + "/"):
                return self.directory / "root" / inside.lstrip("/")
        raise LabError(f"{inside} is in none of a host's private directories: {PRIVATE}")

    def _make_directories(self) -> None:
        for volatile in ("/run/libvirt", "/run/vnet"):
            shutil.rmtree(self.path(volatile), ignore_errors=True)
        for private in PRIVATE:
            self.path(private).mkdir(parents=True, exist_ok=True)
            self._state.make_mount_point(private)
        for inside in (CONTROL_DIRECTORY, CONSOLE_DIRECTORY):
            self.path(inside).mkdir(parents=True, exist_ok=True)
        libvirt_files.write_libvirt_files(self.path("/etc/libvirt"), self.name, self.address)

    def _start_pid1(self) -> None:
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        binds = {private: str(self.path(private)) for private in PRIVATE}
        binds |= libvirt_files.write_machine_files(self.directory, self.name, self.address)
        # What libvirt learned about QEMU in five seconds, it may know again in the next run.
        known = cache_directory() / "libvirt" / self.name
        known.mkdir(parents=True, exist_ok=True)
        binds["/var/cache/libvirt"] = str(known)
        empty = self.directory / "empty"
        empty.touch()
        settings = json.dumps({"name": self.name, "binds": binds, "empty": str(empty)})
        argv = [
            *self.namespace.entry, "unshare", "--mount", "--uts", "--pid", "--fork",
            "--kill-child", "--mount-proc", "--propagation", "private", "--",
            sys.executable, "-I", "-S", str(PID1), settings, str(ready),
        ]  # fmt: skip
        pid1 = start_recorded(self._state, f"host {self.name}", argv, self.directory / "pid1.log")
        self._pid1 = pid1
        wait_until(lambda: ready.exists() or not pid1.alive, f"host {self.name} did not come up")
        if not pid1.alive:
            raise LabError(f"host {self.name} did not come up:\n{pid1.tail()}")
        children = pathlib.Path(f"/proc/{pid1.pid}/task/{pid1.pid}/children").read_text()
        self._init_pid = int(children.split()[0])

    def _remove_remains(self) -> None:
        if not self.namespace.path.exists():
            return
        for network in (DATA, MANAGEMENT):
            self._fabric.disconnect(self.namespace, network)
        self.namespace.remove()

    # Processes in it

    @property
    def entry(self) -> list[str]:
        """The command in front of one that shall run in here; by hand, put `bash` behind it."""
        if not self.running:
            raise LabError(f"host {self.name} is off")
        return [
            "nsenter", f"--target={self._init_pid}", "--mount", "--uts", "--net", "--pid", "--",
        ]  # fmt: skip

    def spawn(
        self, argv: Sequence[str], *, name: str, env: Mapping[str, str] | None = None
    ) -> Process:
        """Starts a command in the host; what it prints goes to NAME.log in its directory."""
        log = self.directory / f"{name}.log"
        return start_inside(self._state, self.entry, name, argv, log, env)

    def run(
        self, argv: Sequence[str], timeout: float = 60.0
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command in the host; the caller looks at returncode, stdout and stderr."""
        return subprocess.run(
            [*self.entry, *argv], capture_output=True, text=True, check=False, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    # libvirt

    @property
    def uri(self) -> str:
        """The host's libvirt, from outside of the host. Inside it is qemu:///system."""
        return f"qemu+unix:///system?socket={self.path('/run/libvirt/libvirt-sock')}"

    @property
    def migration_uri(self) -> str:
        """The host's libvirt, as other hosts reach it."""
        return f"qemu+tcp://{self.address}/system"

    @property
    def libvirtd(self) -> Process:
        if self._libvirtd is None:
            raise LabError(f"host {self.name} has no libvirtd")
        return self._libvirtd

    def start_libvirtd(self) -> None:
        """Starts libvirtd and returns when it answers; nothing happens when it runs."""
        with self._lock:
            if self._libvirtd is None or not self._libvirtd.alive:
                argv = ["libvirtd", "--listen", "--pid-file", "/run/libvirt/libvirtd.pid"]
                self._libvirtd = self.spawn(argv, name="libvirtd")
            self.connect()

    def kill_libvirtd(self) -> None:
        """SIGKILL; guests go on running."""
        self._drop_connection()
        self.libvirtd.kill()

    def restart_libvirtd(self) -> None:
        """SIGTERM and a new start; guests go on running."""
        self._drop_connection()
        self.libvirtd.stop()
        self.start_libvirtd()

    def connect(self) -> libvirt.virConnect:
        """The lab's own connection, shared by all callers; made anew when it broke."""
        with self._lock:
            if self._connection is None or not self._connection.isAlive():
                self._connection = wait_until(self._try_connect, f"no libvirtd on {self.name}")
            return self._connection

    def _try_connect(self) -> "libvirt.virConnect | None":
        if self._libvirtd is None or not self._libvirtd.alive:
            tail = self._libvirtd.tail() if self._libvirtd else "it was not started"
            raise LabError(f"libvirtd of host {self.name} does not run:\n{tail}")
        if not self.path("/run/libvirt/libvirt-sock").exists():
            return None
        try:
            return libvirt.open(self.uri)
        except libvirt.libvirtError:
            return None

    def _drop_connection(self) -> None:
        with self._lock:
            self._connection = None

    def install_hook(self, command: Sequence[str], name: str = "vnet") -> None:
        """Puts `command` behind libvirt's qemu hook.

        libvirtd looks for hooks when it starts, so a running one is restarted.
        """
        etc = self.path("/etc/libvirt")
        etc.mkdir(parents=True, exist_ok=True)
        libvirt_files.write_hook(etc, command, name)
        if self._libvirtd and self._libvirtd.alive:
            self.restart_libvirtd()

    # Devices

    def create_tap(
        self, name: str, *, mac: str | None = None, mtu: int | None = None, queues: int = 1,
        txqueuelen: int | None = None,
    ) -> None:  # fmt: skip
        """Makes a tap as Nova does: persistent, up, in no bridge. An existing one stays as it is.

        `mac` is the tap's own, not the guest's.
        """
        if self.has_device(name):
            return
        multi_queue = " multi_queue" if queues > 1 else ""
        commands = [f"tuntap add dev {name} mode tap{multi_queue}"]
        if mac:
            commands.append(f"link set {name} address {mac}")
        if mtu:
            commands.append(f"link set {name} mtu {mtu}")
        if txqueuelen:
            commands.append(f"link set {name} txqueuelen {txqueuelen}")
        self.namespace.ip(*commands, f"link set {name} up")

    def has_device(self, name: str) -> bool:
        devices = f"/proc/{self._init_pid}/root/sys/class/net"
        return self._init_pid > 0 and os.path.exists(f"{devices}/{name}")

    def delete_tap(self, name: str) -> None:
        """Nothing happens when there is none."""
        if self.has_device(name):
            self.namespace.ip(f"link del {name}")

    def bridge_taps(self, *taps: str) -> None:
        """Wires taps and the uplink with a plain bridge: for tests without an agent."""
        if not self.has_device("br0"):
            self.namespace.ip(
                "link add br0 type bridge forward_delay 0 mcast_snooping 0",
                "link set br0 up",
                f"link set {UPLINK} master br0",
            )
        self.namespace.ip(*(f"link set {tap} master br0" for tap in taps))
