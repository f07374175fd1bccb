"""What is pinned, who holds it, and what of other versions lies beside it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import datapath_keeper
import pytest
from datapath_world import private

from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.exceptions import DatapathError

KEEPER = Path(datapath_keeper.__file__)
PROGRAMS = {"vnet_tc_from_port", "vnet_tc_to_port", "vnet_tc_uplink"}


def pinned_id(path: str) -> int:
    told = subprocess.run(
        ["/usr/sbin/bpftool", "-j", "prog", "show", "pinned", path],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(json.loads(told.stdout)["id"])


@private
def test_datapath_programs_are_pinned_and_replaced(bpffs: str) -> None:
    pin_dir = os.path.join(bpffs, "vnet")
    progs = os.path.join(pin_dir, "v1", "progs")
    ids = []
    for _ in range(2):
        driver = EbpfDriver(pin_dir=pin_dir, max_ports=4)
        driver.open()
        assert set(os.listdir(progs)) == PROGRAMS
        ids.append({name: pinned_id(os.path.join(progs, name)) for name in PROGRAMS})
        driver.close()
    assert all(ids[0][name] != ids[1][name] for name in PROGRAMS)
    # What died between pinning and renaming is in nobody's way.
    os.rename(os.path.join(progs, "vnet_tc_uplink"), os.path.join(progs, "vnet_tc_uplink_new"))
    driver.open()
    assert set(os.listdir(progs)) == PROGRAMS
    # Nor is a missing pin in that of taking everything away.
    os.unlink(os.path.join(pin_dir, "v1", "vnet_ports"))
    driver.destroy()
    assert not {"vnet", "other"} & set(os.listdir(bpffs))


@private
def test_datapath_has_one_agent_at_a_time(bpffs: str) -> None:
    pin_dir = os.path.join(bpffs, "vnet")
    keeper = subprocess.Popen(
        [sys.executable, str(KEEPER), pin_dir, json.dumps({"ports": [], "uplink": None})],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == "ready\n"
    second = EbpfDriver(pin_dir=pin_dir, max_ports=4)
    with pytest.raises(DatapathError, match="another running agent"):
        second.open()
    other = EbpfDriver(pin_dir=os.path.join(bpffs, "other"), max_ports=4)
    other.open()
    os.kill(keeper.pid, signal.SIGKILL)
    keeper.wait()
    second.open()
    second.close()
    # A lock that is let go and one that was never got are both gone.
    second.open()
    second.destroy()
    other.destroy()
    assert not {"vnet", "other"} & set(os.listdir(bpffs))


@private
def test_datapath_of_another_version_stays(bpffs: str) -> None:
    pin_dir = os.path.join(bpffs, "vnet")
    older, newer = (os.path.join(pin_dir, name) for name in ("v0", "v2"))
    os.mkdir(pin_dir)
    for directory in (older, newer):
        os.mkdir(directory)
        subprocess.run(
            [
                *("/usr/sbin/bpftool", "map", "create", os.path.join(directory, "vnet_ports")),
                *("type", "array", "key", "4", "value", "64", "entries", "2"),
                *("name", "vnet_ports"),
            ],
            check=True,
        )
    driver = EbpfDriver(pin_dir=pin_dir, max_ports=4)
    driver.open()
    assert driver.kernel.max_ports == 4
    assert driver.ports() == []
    driver.close()
    driver.open()
    driver.destroy()
    assert sorted(os.listdir(pin_dir)) == ["v0", "v2"]
    assert os.listdir(older) == os.listdir(newer) == ["vnet_ports"]
