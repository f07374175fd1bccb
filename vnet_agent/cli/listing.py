"""Listings that may be long: filters, a limit, and where to go on."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
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


def read(
    command: ListCommand, args: argparse.Namespace, *path: str
) -> Iterator[Mapping[str, Any]]:
    """Rows of the last part of `path`, a page at a time as they are taken.

    The first page is asked for at once: what is wrong with the question is said before any row.
    Standard error names the cursor if there are more.
    """
    return _follow(command, args, path, _ask(command, args, path, args.cursor, args.limit))


def _follow(
    command: ListCommand, args: argparse.Namespace, path: Sequence[str], page: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    room = args.limit
    while True:
        rows, cursor = page[path[-1]], page["cursor"]
        yield from rows
        room -= len(rows)
        if cursor is None:
            return
        if room <= 0:
            sys.stderr.write(f"There may be more: go on with --cursor {cursor}\n")
            return
        page = _ask(command, args, path, cursor, room)


def _ask(
    command: ListCommand,
    args: argparse.Namespace,
    path: Sequence[str],
    cursor: str | None,
    room: int,
) -> Mapping[str, Any]:
    page: Mapping[str, Any] = command.client.get(
        *path,
        protocol=args.protocol,
        remote=args.remote,
        state=args.state,
        verdict=args.verdict,
        port=getattr(args, "of", None),
        limit=min(room, _PAGE),
        cursor=cursor,
    )
    if "error" in page:
        raise Refused(detail=f"The listing broke off: {page['error']}")
    return page
