"""OVS with connection tracking, of Debian's openvswitch-switch: its userspace datapath with two
kinds of ports, and its kernel datapath where the kernel has the module."""

import contextlib
import pathlib
import tempfile
import time
from collections.abc import Iterator

from rulesets import openflow_rules
from sandbox import RUN, BenchError, daemon
from tenants import GUESTS, Site, make_rules, wire_guests

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


@contextlib.contextmanager
def _daemons(site: Site, directory: pathlib.Path, *options: str) -> Iterator[list[str]]:
    """ovsdb-server and ovs-vswitchd; gives how to call ovs-vsctl."""
    database, socket = directory / "conf.db", f"unix:{directory}/db.sock"
    vsctl = ["ovs-vsctl", f"--db={socket}", "--timeout=10"]
    site.node.run("ovsdb-tool", "create", str(database), SCHEMA)
    server = [
        "ovsdb-server",
        str(database),
        f"--remote=p{socket}",
        f"--unixctl={directory}/db.ctl",
    ]
    switch = ["ovs-vswitchd", socket, f"--unixctl={directory}/switch.ctl"]
    log = directory / "log"
    with daemon(server, site.node, log):
        _wait_for(directory / "db.sock", log)
        site.node.run(*vsctl, "--no-wait", "init")
        if options:
            site.node.run(*vsctl, "--no-wait", "set", "Open_vSwitch", ".", *options)
        with daemon(switch, site.node, log):
            yield vsctl


def _wait_for(path: pathlib.Path, log: pathlib.Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        if time.monotonic() > deadline:
            raise BenchError(f"{path} never came: {log.read_text()[-2000:]}")
        time.sleep(0.02)


@contextlib.contextmanager
def _connect(site: Site, datapath: str, interface: str = "", *options: str) -> Iterator[None]:
    """`datapath`: netdev or system; `interface` is set on each port, `options` on the switch."""
    wire_guests(site)
    with tempfile.TemporaryDirectory(dir=RUN) as name:
        directory = pathlib.Path(name)
        with _daemons(site, directory, *options) as vsctl:
            _add_bridge(site, vsctl, datapath, interface)
            flows = openflow_rules(GUESTS, make_rules())
            target = f"unix:{directory}/br0.mgmt"
            site.node.run("ovs-ofctl", "add-flows", target, "-", text=flows)
            try:
                yield
            finally:
                # A datapath in the kernel outlives its daemon.
                site.node.run(*vsctl, "del-br", "br0")


def _add_bridge(site: Site, vsctl: list[str], datapath: str, interface: str) -> None:
    ports: list[str] = []
    for number, guest in enumerate(GUESTS, 1):
        ports += ["--", "add-port", "br0", guest.tap, "--", "set", "Interface", guest.tap]
        ports += [f"ofport_request={number}", *interface.split()]
    site.node.run(
        *(*vsctl, "add-br", "br0", "--", "set", "Bridge", "br0", f"datapath_type={datapath}"),
        *("fail_mode=secure", *ports),
    )
    for guest in GUESTS:
        error = site.node.run(*vsctl, "get", "Interface", guest.tap, "error").strip()
        if error not in ("[]", '""'):
            raise BenchError(f"OVS refuses {guest.tap}: {error}")


@contextlib.contextmanager
def connect_packet(site: Site) -> Iterator[None]:
    """AF_PACKET; the guests keep their offloads, and frames of 64 kB cross whole."""
    with _connect(site, "netdev", "", "other_config:userspace-tso-enable=true"):
        yield


@contextlib.contextmanager
def connect_xdp(site: Site) -> Iterator[None]:
    """AF_XDP knows no unfinished checksums and no TSO: the guests do without."""
    with _connect(site, "netdev", "type=afxdp"):
        for place in site.guests:
            place.run("ethtool", "-K", "eth0", "tx", "off")
        yield


@contextlib.contextmanager
def connect_kernel(site: Site) -> Iterator[None]:
    """openvswitch.ko; user space sees only the first frame of a flow."""
    with _connect(site, "system"):
        yield
