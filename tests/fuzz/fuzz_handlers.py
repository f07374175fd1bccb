"""Coverage-guided fuzzing of handlers' documents: `python tests/fuzz/fuzz_handlers.py [CORPUS]`.

What is taken must be read back as it is, compile, and say the same when it is decompiled.
"""

import contextlib
import json
import pathlib
import sys

import atheris

with atheris.instrument_imports():
    from vnet_agent import exceptions
    from vnet_agent.datapath.handlers import compile_handler, decompile_rule
    from vnet_agent.handlers import document
    from vnet_agent.model import handler
    from vnet_agent.packets import answer


class Here:
    """Every port that is named is here, and each VM has one."""

    def __init__(self) -> None:
        self.ports: dict[int, str] = {}

    def local_id(self, port: str) -> int:
        self.ports[len(self.ports) + 1] = port
        return len(self.ports)

    def ids_of(self, instance: str) -> list[int]:
        return [self.local_id(instance)]

    def ids_in(self, group: str) -> list[int]:
        return [self.local_id(group)]


def check_rule(rule: handler.Handler) -> None:
    if document.rule_from_json(handler.show_handler(rule), 0)[1] != rule:
        raise AssertionError(f"read back otherwise: {rule!r}")
    here = Here()
    compiled = compile_handler(rule, here)
    if rule.match.instance is None and rule.match.group is None and len(compiled) == 1:
        again = decompile_rule(compiled[0], here.ports)
        if again != rule:
            raise AssertionError(f"compiled otherwise: {rule!r} {again!r}")
    if len({len(item.match) for item in compiled} | {192}) != 1:
        raise AssertionError(f"of a strange size: {rule!r}")


def check_text(text: str) -> None:
    try:
        table = document.parse_table(text, 0, name="f")
    except exceptions.HandlerError as error:
        name, _, line = error.where.partition(":")
        if name != "f" or not 1 <= int(line) <= len(text) + 1 or "\n" in error.detail:
            raise AssertionError(f"a refusal that helps nobody: {error!r}") from error
        return
    for rule in table.rules:
        check_rule(rule)


def check_json(data: bytes) -> None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    with contextlib.suppress(exceptions.HandlerError):
        answer.read_answer(value)
    try:
        check_rule(document.rule_from_json(value, 0)[1])
    except exceptions.HandlerError as error:
        if not error.where.startswith("$"):
            raise AssertionError(f"no path: {error!r}") from error


def test_one_input(data: bytes) -> None:
    check_text(data.decode(errors="surrogateescape"))
    check_json(data)


def main() -> None:
    corpus = str(pathlib.Path(__file__).parent / "corpus" / "handlers")
    arguments = (
        sys.argv if any(not a.startswith("-") for a in sys.argv[1:]) else [*sys.argv, corpus]
    )
    atheris.Setup(arguments, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
