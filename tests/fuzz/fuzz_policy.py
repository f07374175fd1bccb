"""Coverage-guided fuzzing of the policy document: `python tests/fuzz/fuzz_policy.py [CORPUS]`.

Takes libFuzzer's options, such as `-runs=100000` or `-max_total_time=60`. Both YAML parsers are
run: libyaml, which the agent uses, and the one in Python, which the fuzzer can see into.
"""

import json
import pathlib
import sys

import atheris

with atheris.instrument_imports():
    import msgspec
    import yaml

    from vnet_agent import exceptions
    from vnet_agent.policy import document, tree

LOADERS = (yaml.SafeLoader, tree._LOADER)


def check_text(text: str) -> None:
    """Groups that are read back as they are, or a PolicyError with a line that exists."""
    try:
        groups = document.parse(text, name="f")
    except exceptions.PolicyError as error:
        name, _, line = error.where.partition(":")
        if name != "f" or not 1 <= int(line) <= len(text) + 1 or "\n" in error.detail:
            raise AssertionError(f"a refusal that helps nobody: {error!r}") from error
        return
    if document.groups_from_json(msgspec.to_builtins(groups)) != groups:
        raise AssertionError(f"read back otherwise: {groups!r}")


def check_json(data: bytes) -> None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        document.group_from_json(value)
    except exceptions.PolicyError as error:
        if not error.where.startswith("$"):
            raise AssertionError(f"no path: {error!r}") from error


def test_one_input(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    for loader in LOADERS:
        tree._LOADER = loader
        check_text(text)
    check_json(data)


def main() -> None:
    corpus = str(pathlib.Path(__file__).parent / "corpus" / "policy")
    arguments = (
        sys.argv if any(not a.startswith("-") for a in sys.argv[1:]) else [*sys.argv, corpus]
    )
    atheris.Setup(arguments, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
