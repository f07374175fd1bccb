"""What the lab writes: the domain's XML, the guest's archive, its record, its lock."""

import fcntl
import json
import os
import pathlib
import subprocess
import threading
import xml.etree.ElementTree as ET

import pytest

from devstack.lab.domain import NOVA, Nic, Spec, build_domain_xml
from devstack.lab.errors import LabError
from devstack.lab.image import Image, build_archive
from devstack.lab.lock import LabLock
from devstack.lab.state import State, process_start_time
from devstack.lab.waiting import wait_until

PORT = "11111111-2222-4333-8444-555555555555"
IMAGE = Image(pathlib.Path("/kernel"), pathlib.Path("/initrd"), pathlib.Path("/traffic"), "6.1")


def build(**settings: object) -> ET.Element:
    nic = Nic(addresses=["10.0.0.5/24", "fd00::5/64"], uuid=PORT, queues=2, gateway="10.0.0.1")
    return ET.fromstring(build_domain_xml(Spec(name="vm", nics=[nic], **settings), IMAGE))


def test_port_is_as_nova_writes_it() -> None:
    domain = build()
    interface = domain.find("devices/interface")
    assert interface is not None
    assert interface.get("type") == "ethernet"
    target = interface.find("target")
    assert target is not None
    assert target.attrib == {"dev": "tap11111111-22", "managed": "no"}
    assert len(target.attrib["dev"]) == 14
    port = domain.find(f"metadata/{{{NOVA}}}instance/{{{NOVA}}}ports/{{{NOVA}}}port")
    assert port is not None
    assert port.get("uuid") == PORT
    assert [ip.attrib for ip in port] == [
        {"type": "fixed", "address": "10.0.0.5", "ipVersion": "4"},
        {"type": "fixed", "address": "fd00::5", "ipVersion": "6"},
    ]


def test_guest_learns_its_addresses_from_the_command_line() -> None:
    cmdline = build().findtext("os/cmdline")
    assert cmdline is not None
    assert "vnet.port=fa:16:3e:11:11:11,10.0.0.5/24,fd00::5/64,via=10.0.0.1" in cmdline.split()


def test_metadata_may_be_left_out() -> None:
    assert build(nova=False).find("metadata") is None


def test_two_guests_differ() -> None:
    one, two = (Spec(name="vm", nics=[Nic(addresses=["10.0.0.5/24"])]) for _ in range(2))
    assert one.uuid != two.uuid
    assert one.nics[0].mac != two.nics[0].mac


@pytest.mark.skipif(not os.path.exists("/usr/bin/cpio"), reason="needs cpio as the oracle")
def test_archive_is_what_cpio_reads(tmp_path: pathlib.Path) -> None:
    files = {"init": b"#!/bin/sh\n", "sbin/tool": b"\x7fELF" + bytes(1001)}
    archive = build_archive(files, {"bin/sh": "busybox"})
    subprocess.run(["cpio", "-idu", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert {name: (tmp_path / name).read_bytes() for name in files} == files
    assert os.access(tmp_path / "init", os.X_OK)
    assert os.readlink(tmp_path / "bin/sh") == "busybox"
    assert archive == build_archive(files, {"bin/sh": "busybox"})


def test_lock_refuses_the_second_and_names_the_first(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "lock"
    first, second = LabLock(path), LabLock(path)
    first.acquire(tmp_path / "one")
    with pytest.raises(LabError, match=f"process {os.getpid()}, in {tmp_path}/one"):
        second.acquire(tmp_path / "two")
    first.release()
    assert not path.exists()
    second.acquire(tmp_path / "two")
    second.release()


def test_lock_of_a_dead_runner_is_waited_for(tmp_path: pathlib.Path) -> None:
    """Its child may hold the lock a moment longer; that is not another lab that runs."""
    path = tmp_path / "lock"
    runner = subprocess.Popen(["true"])
    runner.wait()
    with open(path, "w") as held:
        held.write(json.dumps({"pid": runner.pid, "workdir": str(tmp_path / "lab")}))
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        threading.Timer(0.1, fcntl.flock, (held, fcntl.LOCK_UN)).start()
        LabLock(path).take_down()
    assert not path.exists()


def test_lock_of_a_kept_lab_is_refused_while_it_is_up(tmp_path: pathlib.Path) -> None:
    path, kept = tmp_path / "lock", tmp_path / "kept"
    process = subprocess.Popen(["sleep", "60"])
    lock, state = LabLock(path), State(kept)
    lock.acquire(kept)
    state.begin(temporary=False)
    state.record(process.pid, "sleep")
    state.set_kept()
    lock.release(keep=True)

    with pytest.raises(LabError, match=f"kept up in {kept}"):
        LabLock(path).acquire(tmp_path / "next")
    assert process.poll() is None

    LabLock(path).take_down(only=tmp_path / "other")
    assert process.poll() is None
    assert path.exists()
    LabLock(path).take_down()
    assert not path.exists()
    assert process.wait() == -9


def test_sweep_ends_what_was_recorded_and_nobody_else(tmp_path: pathlib.Path) -> None:
    recorded, other = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    state = State(tmp_path / "lab")
    state.begin(temporary=True)
    state.record(recorded.pid, "recorded")
    state.record(other.pid, "pid that was used again")
    record = json.loads((tmp_path / "lab/state.json").read_text())
    record["processes"][str(other.pid)]["start"] -= 1
    (tmp_path / "lab/state.json").write_text(json.dumps(record))

    State(tmp_path / "lab").sweep()

    assert recorded.wait() == -9
    assert other.poll() is None
    assert not (tmp_path / "lab").exists()
    other.kill()
    other.wait()
    assert process_start_time(other.pid) is None


def test_sweep_removes_only_mount_points_that_it_made(tmp_path: pathlib.Path) -> None:
    state = State(tmp_path / "lab")
    state.begin(temporary=False)
    (tmp_path / "there").mkdir()
    state.make_mount_point(str(tmp_path / "there"))
    state.make_mount_point(str(tmp_path / "new/deep"))
    state.make_mount_point(str(tmp_path / "used"))
    (tmp_path / "used/file").touch()

    State(tmp_path / "lab").sweep()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab", "there", "used"]


def test_waiting_ends_with_what_it_waited_for() -> None:
    assert wait_until(iter([0, "", "found"]).__next__, "it comes", pause=0) == "found"
    with pytest.raises(LabError, match="in vain: it never comes"):
        wait_until(lambda: False, "it never comes", timeout=0)
