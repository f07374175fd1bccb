"""Listings that may be long: filters, a limit, and where to go on."""

import argparse
import sys
from typing import Any

from vnet_agent.cli.client import Refused
from vnet_agent.cli.command import ListCommand

#: Rows of one answer.
_PAGE = 10_000


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--protocol", help="only tcp, udp, sctp, icmp, icmpv6, or this number")
    parser.add_argument("--remote", metavar="CIDR", help="only with peers of these addresses")
    parser.add_argument("--state", help="only in this state, as in established")
    parser.add_argument(
        "--stale",
        dest="verdict",
        action="store_const",
        const="stale",
        help="only those that will be judged again, since the port's policy has changed",
    )
    parser.add_argument(
        "--limit", type=int, default=1000, help="list at most so many (default: 1000)"
    )
    parser.add_argument(
        "--cursor", help="go on where an earlier listing ended, which named this cursor"
    )


def read(command: ListCommand, args: argparse.Namespace, *path: str) -> list[dict[str, Any]]:
    """Rows of the last part of `path`; standard error names the cursor if there are more."""
    name = path[-1]
    rows: list[dict[str, Any]] = []
    cursor = args.cursor
    while True:
        room = args.limit - len(rows)
        answer = command.client.get(
            *path,
            protocol=args.protocol,
            remote=args.remote,
            state=args.state,
            verdict=args.verdict,
            port=getattr(args, "of", None),
            limit=min(room, _PAGE),
            cursor=cursor,
        )
        rows.extend(answer[name])
        cursor = answer["cursor"]
        if "error" in answer:
            raise Refused(detail=f"The listing broke off: {answer['error']}")
        if cursor is None:
            return rows
        if len(rows) >= args.limit:
            sys.stderr.write(f"There may be more: go on with --cursor {cursor}\n")
            return rows
