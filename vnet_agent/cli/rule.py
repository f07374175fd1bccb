"""`vnetctl rule`: the policy in force."""

import argparse
import json
from pathlib import Path
from typing import Any

from vnet_agent.cli.client import Refused
from vnet_agent.cli.columns import show_fields, show_rows
from vnet_agent.cli.command import ListCommand, ShowCommand

_COLUMNS = (
    "group",
    "number",
    "applies_to",
    "established",
    "direction",
    "ethertype",
    "protocol",
    "ports",
    "icmp_type",
    "icmp_code",
    "remote",
    "remote_group",
)


class RuleList(ListCommand):
    """List the rules in force, group by group; a group without rules has one empty row."""

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        rows = [
            rule
            | group
            | {"group": group["name"], "ports": show_ports(rule.get("ports"))}
            | {"number": number if rule else None}
            for group in self.client.get("rules")["groups"]
            for number, rule in enumerate(group["rules"] or [{}], 1)
        ]
        return show_rows(_COLUMNS, rows)


def show_ports(ports: list[int] | None) -> str | None:
    """As a policy document has it."""
    if ports is None:
        return None
    low, high = ports
    return str(low) if low == high else f"{low}-{high}"


class RuleLoad(ShowCommand):
    """Put the policy of a YAML or JSON file in force, in place of what is."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("file", metavar="FILE", type=Path, help="the policy document")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        try:
            body = parsed_args.file.read_bytes()
        except OSError as error:
            detail = f"{parsed_args.file} cannot be read: {error.strerror}"
            raise Refused(detail=detail) from None
        return show_fields(self.client.put("rules", body=body, name=str(parsed_args.file)))


def _add_guards(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--digest",
        metavar="DIGEST",
        help="change nothing unless the policy is still this one (policy_digest of `status`)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="also change what the controller gave, which it will replace at its next change",
    )


def _show_edit(edit: dict[str, Any]) -> Any:
    rule = {name: value for name, value in edit.pop("rule").items() if value is not None}
    if "ports" in rule:
        rule["ports"] = show_ports(rule["ports"])
    return show_fields(edit | {"rule": rule})


class RuleAdd(ShowCommand):
    """Add a rule to a group that is in force; it allows what all its options say."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("group", metavar="GROUP", help="as `rule list` names it")
        parser.add_argument(
            "--direction",
            choices=("ingress", "egress"),
            required=True,
            help="to the VM, or from it",
        )
        parser.add_argument("--protocol", help="a name, such as tcp, or a number")
        parser.add_argument(
            "--ports", metavar="PORT[-PORT]", help="destination: the VM's, or on egress the peer's"
        )
        parser.add_argument("--remote", metavar="CIDR", help="the peer's addresses")
        parser.add_argument(
            "--remote-group", metavar="GROUP", help="the peer must be a member of this group"
        )
        parser.add_argument("--ethertype", help="ipv4 or ipv6 (default: both)")
        parser.add_argument("--icmp-type", type=int, metavar="TYPE")
        parser.add_argument("--icmp-code", type=int, metavar="CODE")
        _add_guards(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        names = ["direction", "protocol", "ports", "remote", "remote_group", "ethertype"]
        names += ["icmp_type", "icmp_code"]
        given = {name: getattr(parsed_args, name) for name in names}
        rule = {name: value for name, value in given.items() if value is not None}
        edit = self.client.post(
            "rules",
            parsed_args.group,
            body=json.dumps(rule).encode(),
            match=parsed_args.digest or self.client.get("rules")["digest"],
            force=1 if parsed_args.force else None,
        )
        return _show_edit(edit)


class RuleDelete(ShowCommand):
    """Delete a rule of a group, and show it; those behind it count one less from then on."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("group", metavar="GROUP", help="as `rule list` names it")
        parser.add_argument("number", metavar="NUMBER", help="the rule's, as `rule list` has it")
        _add_guards(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        edit = self.client.delete(
            "rules",
            parsed_args.group,
            parsed_args.number,
            match=parsed_args.digest or self.client.get("rules")["digest"],
            force=1 if parsed_args.force else None,
        )
        return _show_edit(edit)
