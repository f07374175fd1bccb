"""Fuzz target of the domain XML parser: any bytes give ports or DomainXmlError, nothing else.

    python tests/fuzz/fuzz_domain_xml.py tests/fuzz/corpus/domain_xml [-max_total_time=60]

needs atheris (coverage-guided). Without it, `--blind ROUNDS` mutates the corpus at random.
"""

import random
import sys
from pathlib import Path

from vnet_agent.exceptions import DomainXmlError
from vnet_agent.virt.xml import parse_ports


def test_one_input(data: bytes) -> None:
    try:
        ports = parse_ports(data.decode("utf-8", "surrogateescape"), domain="fuzz")
    except DomainXmlError as error:
        if "\n" in str(error) or len(str(error)) > 1000:
            raise AssertionError(f"unclear error: {error}") from error
        return
    for port in ports:
        if len(port.alias) > 255 or len(port.tap) > 15:
            raise AssertionError(f"unusable port: {port}")


def mutate_blindly(directory: Path, rounds: int, seed: int) -> None:
    source = random.Random(seed)
    corpus = [path.read_bytes() for path in sorted(directory.iterdir())]
    for _ in range(rounds):
        data = bytearray(source.choice(corpus))
        for _ in range(source.randint(0, 8)):
            start = source.randrange(len(data) + 1)
            piece = source.choice(corpus)
            cut = source.randrange(len(piece) + 1)
            data[start : start + source.randint(0, 30)] = source.choice(
                [piece[cut : cut + source.randint(0, 60)], source.randbytes(source.randint(0, 4))]
            )
        test_one_input(bytes(data))


def main() -> None:
    if "--blind" in sys.argv:
        directory, _, rounds = sys.argv[1:4]
        mutate_blindly(Path(directory), int(rounds), seed=1)
        return
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
