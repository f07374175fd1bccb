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

from vnet_agent.datapath import _flowcache as c
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
    progs = os.path.join(pin_dir, f"v{c.ABI_VERSION}", "progs")
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
    os.unlink(os.path.join(pin_dir, f"v{c.ABI_VERSION}", "vnet_ports"))
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
    older, newer = (os.path.join(pin_dir, name) for name in ("v0", "v999"))
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
    assert sorted(os.listdir(pin_dir)) == ["v0", "v999"]
    assert os.listdir(older) == os.listdir(newer) == ["vnet_ports"]


OPEN = """
import sys
from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.port import Role
driver = EbpfDriver(pin_dir=sys.argv[1], max_ports=4)
driver.open()
port = "00000000-0000-4000-8000-000000000001"
if not driver.ports():
    driver.set_port(
        port, instance=port, mac="fa:16:3e:00:00:01", addresses=("10.0.0.1",), network=0,
        bridged=False, role=Role.ACTIVE, generation=1, quota=64,
    )
print(len(driver.ports()), driver.counters(port).connections)
driver.close()
"""


@private
def test_datapath_needs_no_more_capabilities_than_the_unit_gives(bpffs: str) -> None:
    """To adopt what is pinned, too: the second start finds a port."""
    unit = (Path(__file__).parents[2] / "etc/systemd/vnet-agent.service").read_text()
    (line,) = (line for line in unit.splitlines() if line.startswith("CapabilityBoundingSet="))
    given = [name.removeprefix("CAP_").lower() for name in line.partition("=")[2].split()]
    bounds = ",".join(["-all", *(f"+{name}" for name in given)])
    argv = ["setpriv", f"--bounding-set={bounds}", "--no-new-privs", sys.executable, "-c", OPEN]
    for _ in range(2):
        done = subprocess.run(
            [*argv, os.path.join(bpffs, "vnet")], capture_output=True, text=True, timeout=60
        )
        assert (done.stdout, done.stderr) == ("1 0\n", "")
