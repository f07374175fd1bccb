"""`vnetctl table`: an operator's own handlers of frames."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vnet_agent.cli.client import Refused
from vnet_agent.cli.columns import show_fields, show_rows
from vnet_agent.cli.command import ListCommand, ShowCommand

_PAGE = 10_000
_COLUMNS = ("table", "miss", "count", "waiting", "revision")
_RULE_COLUMNS = ("id", "priority", "match", "actions", "cookie", "origin", "waiting")


class TableList(ListCommand):
    """List the tables that have rules, or do something on a miss; `waiting` counts rules that
    name a port or VM which is not here."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--all", action="store_true", help="empty tables too")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        rows = [
            row
            for row in self.client.get("tables")["tables"]
            if parsed_args.all or row["count"] or row["miss"] != "continue"
        ]
        return show_rows(_COLUMNS, rows)


class TableShow(ListCommand):
    """Show the rules of a table, the greatest priority first."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_table(parser)
        parser.add_argument("--priority", type=int, help="only of this priority")
        parser.add_argument("--cookie", help="only with this cookie")
        parser.add_argument(
            "--origin", choices=("operator", "controller"), help="only those that it gave"
        )
        parser.add_argument("--port", help="only those that name this port: UUID, tap or MAC")
        parser.add_argument("--instance", metavar="UUID", help="only those that name this VM")
        parser.add_argument(
            "--waiting",
            action="store_const",
            const=1,
            help="only those that wait for a port or VM that is not here",
        )
        parser.add_argument(
            "--limit", type=int, default=1000, help="show at most so many (default: 1000)"
        )
        parser.add_argument(
            "--cursor", help="go on where an earlier listing ended, which named this cursor"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        filters = ("priority", "cookie", "origin", "port", "instance", "waiting")
        query = {name: getattr(parsed_args, name) for name in filters}
        rows: list[dict[str, Any]] = []
        cursor = parsed_args.cursor
        while True:
            room = parsed_args.limit - len(rows)
            answer = self.client.get(
                "tables", parsed_args.table, limit=min(room, _PAGE), cursor=cursor, **query
            )
            rows += answer["rules"]
            cursor = answer["cursor"]
            if cursor is None or len(rows) >= parsed_args.limit:
                break
        if cursor is not None:
            sys.stderr.write(f"There are more: go on with --cursor {cursor}\n")
        return show_rows(_RULE_COLUMNS, rows)


class TableLoad(ShowCommand):
    """Put the rules of a YAML or JSON file in the place of all that a table has."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_table(parser)
        parser.add_argument("file", metavar="FILE", type=Path, help="the table's document")
        _add_guard(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        try:
            body = parsed_args.file.read_bytes()
        except OSError as error:
            detail = f"{parsed_args.file} cannot be read: {error.strerror}"
            raise Refused(detail=detail) from None
        answer = self.client.put(
            "tables",
            parsed_args.table,
            body=body,
            match=parsed_args.revision,
            name=str(parsed_args.file),
        )
        return show_fields(answer)


class TableAdd(ShowCommand):
    """Add a rule to a table, in the place of one of the same priority and match.

    As in: vnetctl table add 0 --priority 200 --match ip_proto=tcp,tcp_dst=25 --action drop
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_table(parser)
        parser.add_argument("--priority", help="the greatest wins (default: 32768)")
        parser.add_argument(
            "--match",
            action="append",
            default=[],
            metavar="FIELD=VALUE[,...]",
            help="which frames; may be repeated (default: all)",
        )
        parser.add_argument(
            "--action",
            action="append",
            required=True,
            metavar="ACTION",
            help="normal, drop, output=PORT, goto=TABLE, controller[=BYTES], set:FIELD=VALUE, "
            "meter=KBPS, copy=PORT, mirror=PORT, push_vlan=ID or pop_vlan; may be repeated, in "
            "order",
        )
        parser.add_argument("--cookie", help="a number of yours that comes with packet-ins")
        _add_guard(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        rule: dict[str, Any] = {
            "match": _read_match(parsed_args.match),
            "actions": [_read_action(text) for text in parsed_args.action],
        }
        for name in ("priority", "cookie"):
            if (value := getattr(parsed_args, name)) is not None:
                rule[name] = value
        answer = self.client.post(
            "tables",
            parsed_args.table,
            "rules",
            body=json.dumps(rule).encode(),
            match=parsed_args.revision,
        )
        return show_fields(answer)


class TableDelete(ShowCommand):
    """Delete a rule of a table, and show it; or with --all everything of the table."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_table(parser)
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("id", metavar="ID", nargs="?", help="the rule's, as `table show` has it")
        what.add_argument("--all", action="store_true", help="all rules, and what a miss does")
        _add_guard(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        parts = [] if parsed_args.all else ["rules", parsed_args.id]
        answer = self.client.delete(
            "tables", parsed_args.table, *parts, match=parsed_args.revision
        )
        return show_fields(answer)


def _add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", metavar="TABLE", help="its number, 0 to 15")


def _add_guard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--revision",
        metavar="N",
        help="change nothing unless the table is still of this revision",
    )


def _read_match(texts: list[str]) -> dict[str, str]:
    match: dict[str, str] = {}
    for item in (item for text in texts for item in text.split(",")):
        name, equals, value = item.partition("=")
        if not equals or not value:
            raise Refused(detail=f"--match: {item[:60]!r} is not FIELD=VALUE")
        if name in match:
            raise Refused(detail=f"--match: {name[:60]} is given twice")
        match[name] = value
    return match


def _read_action(text: str) -> Any:
    name, equals, value = text.partition("=")
    if not equals:
        return name
    if name.startswith("set:"):
        return {"set": {name[4:]: value}}
    if name == "controller":
        return {name: {"max_len": value}}
    return {name: value}
