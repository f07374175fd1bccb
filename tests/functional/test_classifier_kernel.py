"""The classifier in this kernel: right answers, at rest and while rules change."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from twin_classifier import Rule, pack_fields, pack_rule

from vnet_agent.datapath import _flowcache as c

CSRC = Path(__file__).resolve().parents[2] / "csrc"
BPFTOOL = "/usr/sbin/bpftool"
BPF_SYSCALL, BPF_MAP_CREATE, BPF_MAP_TYPE_ARRAY, BPF_F_MMAPABLE = 321, 0, 2, 1 << 10
LINES = 512


def test_kernel_answers_as_a_search_does_while_rules_change(tmp_path: Path) -> None:
    subprocess.run(["make", "-s", "-C", str(CSRC), f"BUILD={tmp_path}", "kernel"], check=True)
    done = subprocess.run(
        [tmp_path / "kernel_classifier"], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, "classifier in the kernel: ok\n"), done.stderr


@pytest.fixture
def lines() -> Iterator[int]:
    """The descriptor of an array map of LINES lines."""
    attributes = (ctypes.c_uint32 * 32)(BPF_MAP_TYPE_ARRAY, 4, 64, LINES, BPF_F_MMAPABLE)
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.sizeof(attributes)
    fd = libc.syscall(BPF_SYSCALL, BPF_MAP_CREATE, ctypes.byref(attributes), size)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    yield fd
    os.close(fd)


def read_line(fd: int, index: int) -> bytes:
    """What the kernel has in a line."""
    info = Path(f"/proc/self/fdinfo/{fd}").read_text().split()
    number = info[info.index("map_id:") + 1]
    key = index.to_bytes(4, sys.byteorder)
    done = subprocess.run(
        [BPFTOOL, "-j", "map", "lookup", "id", number, "key", *(str(byte) for byte in key)],
        capture_output=True,
        check=True,
    )
    return bytes(int(byte, 16) for byte in json.loads(done.stdout)["value"])


def test_python_writes_into_the_kernels_map(lines: int) -> None:
    classifier = c.Classifier(LINES, 2, lines)
    rule = pack_rule(Rule({"proto": 6}, {"proto": 0xFF}, action=0x1234))
    (first,) = classifier.replace(1, rule, 7)
    entry = classifier.insert(1, rule)
    assert (0x1234).to_bytes(4, sys.byteorder) in read_line(lines, first)
    assert read_line(lines, entry)[16:] == read_line(lines, first)[16:]
    assert classifier.lookup(1, pack_fields({"proto": 6})) == (0x1234, first)
    assert classifier.lookup(1, pack_fields({"proto": 17})) == (7, 0)
    classifier.delete(1, first)
    assert classifier.lookup(1, pack_fields({"proto": 6})) == (0x1234, entry)
    assert classifier.check() is None
    classifier.close()
    assert (0x1234).to_bytes(4, sys.byteorder) in read_line(lines, entry)


def test_more_lines_than_the_map_has_are_refused(lines: int) -> None:
    with pytest.raises(ValueError, match="lines"):
        c.Classifier(1 << 20, 2, lines)
