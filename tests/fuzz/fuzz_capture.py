"""Coverage-guided fuzzing of what reads frames and blocks: `python tests/fuzz/fuzz_capture.py`.

A frame is any bytes of a VM; vnetctl reads blocks from the agent. Takes libFuzzer's options.
"""

import sys

import atheris

with atheris.instrument_imports():
    from vnet_agent.capture.blocks import BlockReader, NoBlocks
    from vnet_agent.capture.pcapng import TaggedPort, Writer
    from vnet_agent.datapath.captured import CapturedFrame

PORT = TaggedPort(uuid="p", instance="i", tap="tap0", mac="52:54:00:00:00:01")


def read(data: bytes, step: int) -> tuple[bytes, int, int] | None:
    reader, passed = BlockReader(), b""
    try:
        for at in range(0, len(data), step):
            passed += reader.feed(data[at : at + step])
    except NoBlocks:
        return None
    return passed, reader.packets, reader.lost


def test_one_input(data: bytes) -> None:
    """Any frame becomes one whole block; any bytes are blocks or are refused, in any pieces."""
    frame = CapturedFrame("p", 0, True, "forward", None, len(data), 0, data)
    block = Writer([PORT], host="h", snap=65535).packet(frame)
    if read(block, len(block)) != (block, 1, 0):
        raise AssertionError("a frame is no block")
    if read(data, len(data) or 1) != read(data, 7):
        raise AssertionError("the size of the pieces made a difference")


def main() -> None:
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
