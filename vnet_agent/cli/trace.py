"""`vnetctl trace`: what would become of a frame, and why."""

import argparse
import json
from pathlib import Path
from typing import Any

from vnet_agent.cli import pcap
from vnet_agent.cli.client import Refused
from vnet_agent.cli.columns import show_fields
from vnet_agent.cli.command import ShowCommand
from vnet_agent.cli.rule import show_ports

_PACKET = (
    "protocol",
    "local",
    "remote",
    "tcp_flags",
    "icmp_type",
    "icmp_code",
    "icmp_id",
    "local_mac",
    "remote_mac",
)
_CONNECTION = ("state", "origin", "fresh", "generation", "idle_ms")


class Trace(ShowCommand):
    """Run a frame through the datapath's own code on the side: nothing changes, nothing is sent.

    The frame is given by its fields (--remote and what else matters), in hexadecimal (--hex), or
    as one of a pcap or pcapng file (--frame).
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--port", required=True, help="UUID, tap or MAC address")
        parser.add_argument(
            "--direction",
            choices=("ingress", "egress"),
            required=True,
            help="to the VM, or from it",
        )
        parser.add_argument("--hex", metavar="BYTES", help="the frame, Ethernet header first")
        parser.add_argument("--frame", metavar="FILE", type=Path, help="a pcap or pcapng file")
        parser.add_argument(
            "--number", type=int, default=1, help="which frame of the file (default: 1)"
        )
        parser.add_argument("--protocol", help="tcp (default), udp, sctp, icmp, or a number")
        parser.add_argument(
            "--local",
            metavar="[A][:PORT]",
            help="the VM's end (default: the port's first address); its port is needed on ingress",
        )
        parser.add_argument(
            "--remote",
            metavar="A[:PORT]",
            help="the peer's end, IPv6 as [A]:PORT; its port is needed on egress",
        )
        parser.add_argument(
            "--tcp-flags", metavar="FLAG[,FLAG]", help="as in syn,ack (default: syn)"
        )
        parser.add_argument("--icmp-type", type=int, metavar="TYPE", help="default: echo request")
        parser.add_argument("--icmp-code", type=int, metavar="CODE")
        parser.add_argument("--icmp-id", type=int, metavar="ID", help="of echoes (default: 1)")
        parser.add_argument("--local-mac", metavar="MAC", help="default: the port's")
        parser.add_argument("--remote-mac", metavar="MAC", help="default: that of the peer's port")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        question = {"port": parsed_args.port, "direction": parsed_args.direction}
        trace = self.client.post(
            "trace", body=json.dumps(question | _read_frame(parsed_args)).encode()
        )
        if trace["connection"] is not None:
            trace["connection"] = {name: trace["connection"][name] for name in _CONNECTION}
        for rule in trace["rules"]:
            rule["ports"] = show_ports(rule["ports"])
        return show_fields(trace)


def _read_frame(args: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(args, name) for name in _PACKET}
    packet = {name: value for name, value in given.items() if value is not None}
    ways = [args.hex is not None, args.frame is not None, bool(packet)]
    if sum(ways) != 1:
        raise Refused(
            detail="Name the frame in one way: by --remote and other fields, --hex, --frame"
        )
    if args.hex is not None:
        return {"frame": "".join(args.hex.replace(":", " ").split())}
    if args.frame is not None:
        return {"frame": _read_file(args.frame, args.number).hex()}
    if "remote" not in packet:
        raise Refused(detail="--remote is needed: with whom does the VM talk?")
    if "tcp_flags" in packet:
        packet["tcp_flags"] = [flag for flag in packet["tcp_flags"].split(",") if flag]
    return {"packet": packet}


def _read_file(path: Path, number: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(pcap.MAX_FILE)
    except OSError as error:
        raise Refused(detail=f"{path} cannot be read: {error.strerror}") from None
    return pcap.read_frame(data, number, name=str(path))
