"""Every option of the agent, with bounds and help; etc/agent.conf.sample is generated from here.

The agent takes the options of oslo.log besides.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Any

from oslo_config import cfg
from oslo_config import types as cfg_types

DEFAULT_FILE = "/etc/vnet/agent.conf"


def _seconds(name: str, default: float, low: float, high: float, text: str) -> cfg.Opt:
    return cfg.FloatOpt(name, default=default, min=low, max=high, help=text)


def _timeout(state: str, default: int, what: str) -> cfg.Opt:
    return cfg.IntOpt(
        f"timeout_{state}",
        default=default,
        min=1,
        max=432000,
        mutable=True,
        help=f"Seconds without a frame after which {what} is forgotten. Read again on SIGHUP.",
    )


GLOBAL: list[cfg.Opt] = [
    cfg.StrOpt(
        "host",
        default=socket.gethostname(),
        sample_default="compute1",
        regex=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$",
        help="Name of this host in events and in the controller; it must be unique in the fleet "
        "and equal to Nova's, where there is Nova.",
    ),
    cfg.StrOpt(
        "state_dir",
        default="/var/lib/vnet",
        help="Directory of the event journal and of what must survive a restart of the agent.",
    ),
    cfg.StrOpt(
        "api_socket",
        default="/run/vnet/agent.sock",
        help="Unix socket of the local API, which vnetctl and the libvirt hook use.",
    ),
    cfg.StrOpt(
        "api_group",
        default="vnet",
        help="Group that may use the local API besides root. Where the group does not exist, "
        "only root may.",
    ),
]

LIBVIRT: list[cfg.Opt] = [
    cfg.StrOpt("uri", default="qemu:///system", help="URI of the libvirt daemon to follow."),
    _seconds(
        "resync_interval",
        60.0,
        1.0,
        3600.0,
        "Seconds between full comparisons of what libvirt says with what is recorded.",
    ),
    _seconds(
        "linger",
        15.0,
        0.0,
        600.0,
        "Seconds that the ports of a VM that is gone keep their tags and connections, so that a "
        "hard reboot, which stops the VM and starts it anew, finds them again.",
    ),
    _seconds("reconnect_min", 0.2, 0.05, 60.0, "Seconds before the first attempt to reconnect."),
    _seconds("reconnect_max", 15.0, 0.1, 600.0, "Longest pause in seconds between two attempts."),
    cfg.IntOpt(
        "keepalive_interval",
        default=1,
        min=1,
        max=60,
        help="Seconds between keep-alive messages to libvirtd.",
    ),
    cfg.IntOpt(
        "keepalive_count",
        default=3,
        min=1,
        max=60,
        help="Keep-alive messages that may stay unanswered before libvirtd counts as gone.",
    ),
]

DATAPATH: list[cfg.Opt] = [
    cfg.StrOpt(
        "driver",
        default="ebpf",
        help="Datapath driver, by its entry point in vnet_agent.datapath: ebpf or memory.",
    ),
    cfg.StrOpt(
        "pin_dir",
        default="/sys/fs/bpf/vnet",
        help="Directory in a bpf file system where maps and programs are pinned.",
    ),
    cfg.ListOpt(
        "uplinks",
        default=[],
        item_type=cfg_types.String(regex=r"^[^\s:/]{1,15}(:[0-9]{1,8}(:vlan=[0-9]{1,4})?)?$"),
        help="Interfaces that lead out of the host, and the numbers of networks that leave there: "
        "NAME:NETWORK untagged, NAME:NETWORK:vlan=ID with an 802.1Q tag, NAME network 0 untagged. "
        "An interface may stand several times, for a network each, of which one may be untagged. "
        "Frames that no local port takes leave here.",
    ),
    cfg.BoolOpt(
        "answer_neighbours",
        default=False,
        help="Whether the datapath itself answers a VM that asks who has an address (ARP, IPv6 "
        "neighbour solicitation) where a port here in its network has it, instead of asking "
        "everybody. Leave it off where an address that a port's metadata list can pass to a VM of "
        "another host, as virtual addresses do: the answer would always be the port here.",
    ),
    cfg.BoolOpt(
        "shortcut",
        default=True,
        help="Whether frames of established connections between two VMs of this host pass from "
        "tap to tap before the kernel makes packets of them, by an XDP program on each tap. Taps "
        "with a virtio header (those of virtio-net devices) cannot; a port that is captured, "
        "limited or under tables of handlers goes the long way. And whether what is for a port "
        "behind a veth enters at the veth's other end, where that is in another namespace. "
        "tcpdump on a tap, or on the receiver's veth, does not see such frames; `vnetctl "
        "capture` does.",
    ),
    cfg.IntOpt(
        "connection_quota",
        default=65536,
        min=64,
        max=4194304,
        help="Most connections that one port may hold. Fixed when the port is created.",
    ),
    cfg.IntOpt(
        "max_ports",
        default=1024,
        min=1,
        max=65536,
        help="Most ports on this host. Read when the datapath is first created.",
    ),
    _seconds(
        "collect_interval",
        5.0,
        0.5,
        300.0,
        "Seconds between removals of expired connections; more where a removal takes more than a "
        "twentieth of it.",
    ),
    cfg.StrOpt(
        "tcp_window",
        default="liberal",
        choices=[
            ("liberal", "They pass, but neither change their connection nor prolong it."),
            ("strict", "Those outside of both ends' windows are dropped as `tcp-window`."),
        ],
        mutable=True,
        help="What becomes of TCP segments whose sequence numbers do not fit their connection, "
        "such as blind resets. Read again on SIGHUP.",
    ),
    cfg.IntOpt(
        "half_open_limit",
        default=4096,
        min=0,
        max=1_000_000,
        mutable=True,
        help="TCP connections of one port that may be under way at once without their handshake "
        "being completed, those that it begins and those that are begun to it together. Beyond it "
        "a SYN is dropped as `half-open`; established connections are not touched. 0: no limit. "
        "Read again on SIGHUP.",
    ),
    cfg.IntOpt(
        "half_open_rate",
        default=1000,
        min=1,
        max=1_000_000,
        mutable=True,
        help="Of these, how many a second are forgotten: what one port may open for good without "
        "ever completing it. Read again on SIGHUP.",
    ),
    _timeout("syn_sent", 120, "a TCP connection whose SYN has not been answered"),
    _timeout("syn_received", 60, "a TCP connection whose handshake lacks its last segment"),
    _timeout("established", 432000, "an established TCP connection"),
    _timeout("fin_wait", 120, "a TCP connection that one end has closed"),
    _timeout("close_wait", 60, "a TCP connection whose first FIN is acknowledged"),
    _timeout("last_ack", 30, "a TCP connection that both ends have closed"),
    _timeout("time_wait", 120, "a TCP connection whose last FIN is acknowledged"),
    _timeout("close", 10, "a TCP connection that was reset"),
    _timeout("unreplied", 30, "a connection other than TCP that has not been answered"),
    _timeout("replied", 180, "a connection other than TCP with frames both ways"),
]

POLICY: list[cfg.Opt] = [
    cfg.StrOpt(
        "file",
        default="",
        help="YAML file of groups and rules that is loaded at start and on SIGHUP. Empty: policy "
        "comes from the controller or from `vnetctl rule load`.",
    ),
    cfg.StrOpt(
        "unbound",
        default="allow",
        choices=["allow", "deny"],
        help="What holds for a port to which no group applies. Spoofed frames are dropped in "
        "both cases.",
    ),
]

MIGRATION: list[cfg.Opt] = [
    cfg.StrOpt(
        "listen_address",
        default="127.0.0.1",
        help="Address on which other agents fetch the state of ports that migrate to them. "
        "Other than on loopback, certificates are needed.",
    ),
    cfg.PortOpt("listen_port", default=7471, help="Port of the same."),
    cfg.StrOpt(
        "advertise_url",
        default="",
        help="URL at which other agents reach this one. Empty: made from listen_address and "
        "listen_port. Needed where listen_address is 0.0.0.0 or ::.",
    ),
    cfg.ListOpt(
        "peers",
        default=[],
        help="URLs of other agents to ask for the state of a port, when no controller knows "
        "where its VM runs.",
    ),
    cfg.BoolOpt(
        "transfer_state",
        default=True,
        help="Whether connections move with the VM. Without it, those that policy would refuse "
        "afresh break at each migration.",
    ),
    cfg.BoolOpt(
        "insecure",
        default=False,
        help="Allow plain HTTP between agents on addresses other than loopback. For labs only.",
    ),
    cfg.StrOpt("cert_file", default="", help="PEM certificate of this agent, for mutual TLS."),
    cfg.StrOpt("key_file", default="", help="PEM key of the certificate."),
    cfg.StrOpt("ca_file", default="", help="PEM authorities whose certificates agents trust."),
    _seconds(
        "precopy_interval",
        0.2,
        0.02,
        10.0,
        "Seconds between rounds of changed connections while the VM still runs on the source.",
    ),
    _seconds(
        "prepare_timeout",
        5.0,
        0.1,
        60.0,
        "Seconds after the guest has come in which the source must answer, before the migration "
        "goes on without state.",
    ),
    cfg.BoolOpt(
        "hand_over_frames",
        default=True,
        help="Take the frames that the VM's taps still have for it when it pauses, and those that "
        "come late, to the host that it moves to. Needs CAP_SYS_PTRACE.",
    ),
    cfg.IntOpt(
        "queue_frames",
        default=10000,
        min=1000,
        max=1000000,
        help="Frames that a tap may hold for its VM: its txqueuelen is raised to it before the VM "
        "starts or comes. What comes beyond it while the VM pauses to move is lost, and counted.",
    ),
    cfg.IntOpt(
        "buffer_mib",
        default=64,
        min=1,
        max=4096,
        help="MiB of a VM's frames that each host holds at most; what is more waits in the "
        "source's tap.",
    ),
    _seconds(
        "relay_time",
        5.0,
        0.1,
        120.0,
        "Seconds for which the source takes late frames after the VM if nothing shows that they "
        "find their own way.",
    ),
    _seconds(
        "idle_timeout",
        30.0,
        1.0,
        600.0,
        "Seconds without a byte from the other agent after which a session is given up.",
    ),
]

CONTROLLER: list[cfg.Opt] = [
    cfg.StrOpt(
        "url",
        default="",
        help="URL of the controller, such as https://controller:7470. Empty: the agent works "
        "alone and keeps its events in the journal.",
    ),
    _seconds("heartbeat_interval", 10.0, 0.2, 300.0, "Seconds between heartbeats."),
    _seconds("timeout", 10.0, 0.1, 120.0, "Seconds to wait for an answer of the controller."),
    _seconds("retry_min", 0.2, 0.05, 60.0, "Seconds before the first retry of a delivery."),
    _seconds("retry_max", 30.0, 0.1, 600.0, "Longest pause in seconds between two retries."),
    cfg.IntOpt(
        "batch_size",
        default=500,
        min=1,
        max=5000,
        help="Most events in one delivery.",
    ),
    cfg.StrOpt("cert_file", default="", help="PEM certificate of this agent, for mutual TLS."),
    cfg.StrOpt("key_file", default="", help="PEM key of the certificate."),
    cfg.StrOpt("ca_file", default="", help="PEM authorities to check the controller against."),
]

EVENTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "sinks",
        default=["controller"],
        help="Where events go, by entry points in vnet_agent.event_sink.",
    ),
    cfg.IntOpt(
        "journal_size",
        default=100000,
        min=1000,
        max=100000000,
        help="Events that the journal keeps for `vnetctl event list` after all sinks have "
        "acknowledged them. Events that are not acknowledged are always kept.",
    ),
    _seconds(
        "reboot_window",
        1.0,
        0.1,
        60.0,
        "Seconds in which several REBOOT events of libvirt count as one reboot.",
    ),
]

HOOK: list[cfg.Opt] = [
    cfg.IntOpt(
        "timeout_ms",
        default=200,
        min=10,
        max=5000,
        help="Milliseconds that the libvirt hook gives the agent before it lets the VM's "
        "operation go on without it.",
    ),
]

CAPTURE: list[cfg.Opt] = [
    cfg.IntOpt(
        "ring_size",
        default=1 << 20,
        min=1 << 18,
        max=1 << 26,
        help="Bytes of the ring between the kernel and the agent, which is there while `vnetctl "
        "capture` runs; rounded up to a power of two. A larger one outlasts longer pauses of the "
        "reader.",
    ),
    cfg.IntOpt(
        "rate",
        default=5000,
        min=1,
        max=1000000,
        help="Most frames a second that are captured of one port, so that a capture cannot burden "
        "the datapath. Frames beyond it are counted as lost to the capture, and pass or are "
        "dropped as ever.",
    ),
]

PACKETS: list[cfg.Opt] = [
    cfg.IntOpt(
        "queue",
        default=64,
        min=1,
        max=65536,
        help="Frames of one port that wait for a reader of packet-ins, the controller or a local "
        "one, at most. Those of a port whose queue is full are counted as lost; other ports "
        "keep their own queue and their turn.",
    ),
    cfg.IntOpt(
        "rate",
        default=100,
        min=1,
        max=1000000,
        help="Frames of one port that handlers may give to the controller in a second, at most, "
        "with a quarter of them at once. What is beyond is dropped, and counted under "
        "controller-rate.",
    ),
]

METRICS: list[cfg.Opt] = [
    cfg.StrOpt(
        "listen",
        default="",
        regex=r"^$|^(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}$",
        help="Address and port, such as 10.0.0.1:9471 or [::1]:9471, on which GET /metrics "
        "answers Prometheus besides the local API's socket. Whoever reaches it reads the names "
        "of ports and instances, and no more. Empty: nowhere.",
    ),
]

GROUPS: Sequence[tuple[str, list[cfg.Opt]]] = (
    ("libvirt", LIBVIRT),
    ("datapath", DATAPATH),
    ("policy", POLICY),
    ("migration", MIGRATION),
    ("controller", CONTROLLER),
    ("events", EVENTS),
    ("hook", HOOK),
    ("capture", CAPTURE),
    ("packets", PACKETS),
    ("metrics", METRICS),
)


def list_opts() -> list[tuple[str | None, list[cfg.Opt]]]:
    """For oslo-config-generator, namespace `vnet.agent`."""
    return [(None, GLOBAL), *GROUPS]


def register(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(GLOBAL)
    for group, options in GROUPS:
        conf.register_opts(options, group=group)


def load(
    arguments: Sequence[str],
    *,
    also: Callable[[cfg.ConfigOpts], None] | None = None,
    **overrides: Any,
) -> cfg.ConfigOpts:
    """Parse `arguments` (with `--config-file`); raises cfg.Error that names option and value.

    `also` registers further options, such as those of oslo.log.
    """
    conf = cfg.ConfigOpts()
    register(conf)
    if also is not None:
        also(conf)
    files: list[str] | None = [] if any(a.startswith("--config-") for a in arguments) else None
    conf(list(arguments), project="vnet", prog="vnet-agent", default_config_files=files)
    for name, value in overrides.items():
        conf.set_override(name, value)
    _check(conf)
    return conf


def _check(conf: cfg.ConfigOpts) -> None:
    """Read every option once: a value is checked when it is read, and that should be at start."""
    for group, options in list_opts():
        for option in options:
            _ = conf[option.dest] if group is None else conf[group][option.dest]
