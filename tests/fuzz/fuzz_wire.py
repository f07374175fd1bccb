"""Coverage-guided fuzzing of the stream decoder: `python tests/fuzz/fuzz_wire.py CORPUS`.

Takes libFuzzer's options, such as `-runs=100000`; run.py calls it. The CRCs of the input
are made right first, since a fuzzer does not guess them and would never get past the first frame.
"""

import sys
import zlib

import atheris

with atheris.instrument_imports():
    from vnet_agent import exceptions
    from vnet_agent.migration import wire


def repair(data: bytes) -> bytes:
    """The same frames with the CRCs that they should have, as far as they are whole."""
    crc = zlib.crc32(data[: wire.HEADER.size])
    done = bytearray(data[: wire.HEADER.size])
    position = wire.HEADER.size
    while position + wire.FRAME.size <= len(data):
        length, _, _ = wire.FRAME.unpack_from(data, position)
        end = position + wire.FRAME.size + length
        if end + wire.CRC.size > len(data):
            break
        crc = zlib.crc32(data[position:end], crc)
        done += data[position:end] + wire.CRC.pack(crc)
        position = end + wire.CRC.size
    return bytes(done + data[position:])


def decode(data: bytes, step: int) -> list[wire.Frame] | None:
    decoder = wire.Decoder()
    frames: list[wire.Frame] = []
    try:
        for start in range(0, len(data), step):
            frames += decoder.feed(data[start : start + step])
        decoder.finish()
    except exceptions.RecordError:
        return None
    return frames


def test_one_input(data: bytes) -> None:
    """Only RecordError comes out, and the pieces in which bytes arrive make no difference."""
    for variant in (data, repair(data)):
        if decode(variant, len(variant) or 1) != decode(variant, 7):
            raise AssertionError("the size of the pieces made a difference")


def main() -> None:
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
