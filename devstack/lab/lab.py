"""The two-host lab: fabric, hosts, guests and peers, and nothing of it left behind."""

import concurrent.futures
import os
import pathlib
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import libvirt

from .domain import Nic, Spec
from .errors import LabError
from .fabric import MANAGEMENT, MANAGEMENT_PREFIX, Fabric
from .guest_vm import Guest
from .host import Host
from .image import Image, build_image
from .lock import LabLock
from .netns import Namespace
from .peer import Peer
from .process import start_recorded
from .state import State
from .waiting import wait_until

PROXY = pathlib.Path(__file__).with_name("proxy.py")
CONTROLLER_ADDRESS = f"{MANAGEMENT_PREFIX}.1"
#: Programs without which nothing works, and the Debian packages that have them.
TOOLS = {
    "libvirtd": "libvirt-daemon libvirt-daemon-driver-qemu",
    "qemu-system-x86_64": "qemu-system-x86",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "sysctl": "procps",
}


class Lab:
    """A lab, up while the `with` block runs.

    Its files are in `workdir`; when none is given in a temporary directory, whose logs are copied
    to `logs` at the end. `controller` is a namespace on the management network, where hosts
    reach CONTROLLER_ADDRESS. `hook` is a command to put behind the qemu hook of every host.
    `wait` is how many seconds another lab of this machine may take to end; when it is not given,
    $VNET_LAB_WAIT says it, or nobody waits.

    All calls block; from asyncio use `asyncio.to_thread`. SIGTERM and SIGHUP end the block as
    Ctrl-C does, and only the first of them counts: what follows is the cleaning up.
    """

    def __init__(
        self, workdir: pathlib.Path | str | None = None, hosts: Sequence[str] = ("a", "b"), *,
        hook: Sequence[str] = (), wait: float | None = None, logs: pathlib.Path | None = None,
    ) -> None:  # fmt: skip
        check_machine()
        self._temporary = workdir is None
        self.workdir = pathlib.Path(workdir or _name_temporary()).resolve()
        self._state = State(self.workdir)
        self._lock = LabLock()
        self._wait = float(os.environ.get("VNET_LAB_WAIT", "0")) if wait is None else wait
        self._hook = hook
        self._logs = logs
        self._kept = False
        self._interrupted = False
        self._signals: dict[int, Any] = {}
        self.fabric = Fabric(self._state)
        self.controller = Namespace(self._state, "controller")
        self.hosts = [Host(self._state, self.fabric, name, i + 1) for i, name in enumerate(hosts)]
        self.image: Image

    def __enter__(self) -> "Lab":
        self._catch_signals()
        try:
            self._lock.acquire(self.workdir, wait=self._wait)
            self._state.begin(temporary=self._temporary)
            self._start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:  # fmt: skip
        if not self._kept or (error and not isinstance(error, SystemExit)):
            self._clean_up()
            return
        self._state.set_kept()
        self._lock.release(keep=True)
        self._restore_signals()

    def keep(self) -> None:
        """Leaves everything up when the block ends well; `Lab.sweep()` takes it away."""
        self._kept = True

    @staticmethod
    def sweep(only: pathlib.Path | None = None) -> None:
        """Takes away what a lab of this machine left: one that was killed, or was kept up.

        With `only` it touches none but the lab in that directory. Raises LabError when a lab
        runs.
        """
        check_root()
        LabLock().take_down(only)

    # What is in it

    def host(self, name: str) -> Host:
        for host in self.hosts:
            if host.name == name:
                return host
        raise LabError(f"the lab has no host {name}: {[host.name for host in self.hosts]}")

    def guest(
        self, name: str, host: Host, addresses: Sequence[str] = (), *,
        nics: Sequence[Nic] | None = None, **spec: Any,
    ) -> Guest:  # fmt: skip
        """A guest with one port that has `addresses`, or with `nics`; `start` boots it."""
        made = Spec(name=name, nics=nics or [Nic(addresses=addresses)], **spec)
        return Guest(made, self.image, host)

    def peer(
        self, name: str, addresses: Sequence[str], *, host: Host | None = None, device: str = "",
    ) -> Peer:  # fmt: skip
        """A running plain peer, on the data network or behind `device` on a host."""
        peer = Peer(self._state, self.image, name, addresses)
        if host:
            peer.start_on_host(host, device or f"tap-{name}")
        else:
            peer.start_on_fabric(self.fabric)
        return peer

    def expose(self, port: int, *, listen: int = 0) -> int:
        """Makes the controller's TCP `port` reachable at 127.0.0.1; returns the port there."""
        ready = self.workdir / f"proxy-{port}.port"
        ready.unlink(missing_ok=True)
        argv = [
            sys.executable, "-I", "-S", str(PROXY), str(self.controller.path), str(listen),
            CONTROLLER_ADDRESS, str(port), str(ready),
        ]  # fmt: skip
        log = self.workdir / f"proxy-{port}.log"
        proxy = start_recorded(self._state, f"proxy {port}", argv, log)
        wait_until(
            lambda: (ready.exists() and ready.read_text()) or not proxy.alive, "no proxy started"
        )
        if not proxy.alive:
            raise LabError(f"the proxy to port {port} did not start:\n{proxy.tail()}")
        return int(ready.read_text())

    # Up and down

    def _start(self) -> None:
        # libvirt's errors are raised; printed as well, they spoil what the caller prints.
        libvirt.registerErrorHandler(lambda context, error: None, None)
        self.image = build_image()
        self.fabric.create()
        self.controller.create()
        self.fabric.connect(self.controller, "mgmt0", MANAGEMENT)
        self.controller.ip(f"addr add {CONTROLLER_ADDRESS}/24 dev mgmt0")
        if self._hook:
            for host in self.hosts:
                host.install_hook(self._hook)
        in_parallel(host.start for host in self.hosts)

    def _clean_up(self) -> None:
        self._interrupted = True
        try:
            if self._lock.held:
                self._save_logs()
                self._state.sweep()
        finally:
            self._lock.release()
            self._restore_signals()

    def _save_logs(self) -> None:
        if not self._logs:
            return
        shutil.rmtree(self._logs, ignore_errors=True)
        for log in self.workdir.rglob("*.log"):
            target = self._logs / log.relative_to(self.workdir)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, target)

    def _catch_signals(self) -> None:
        self._interrupted = False
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._signals[number] = signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, frame: types.FrameType | None) -> None:
        if self._interrupted:
            return
        self._interrupted = True
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    def _restore_signals(self) -> None:
        for number, handler in self._signals.items():
            signal.signal(number, handler)
        self._signals.clear()


def _name_temporary() -> pathlib.Path:
    """A short name that is made when the lock is held, so that a refusal leaves nothing."""
    return pathlib.Path(tempfile.gettempdir(), f"vnet-lab-{secrets.token_hex(4)}")


def in_parallel(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """Makes blocking calls at the same time; raises the first error after all have ended."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
        futures = [pool.submit(call) for call in calls]
    return [future.result() for future in futures]


def check_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces and needs root: run it with sudo")


def check_machine() -> None:
    """Raises LabError when this machine or this user cannot run a lab, and says why."""
    check_root()
    missing = {tool: package for tool, package in TOOLS.items() if not shutil.which(tool)}
    if missing:
        raise LabError(
            f"missing programs: {', '.join(missing)}; "
            f"apt-get install --no-install-recommends {' '.join(missing.values())}"
        )
    if not os.path.exists("/dev/net/tun"):
        raise LabError("the lab needs /dev/net/tun: this kernel or container has none")
