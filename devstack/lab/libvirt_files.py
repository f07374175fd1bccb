"""libvirt's configuration on a lab host."""

import pathlib
import shlex
import uuid
from collections.abc import Sequence

#: From these names the same identity follows for a host in every run, and another one per host.
_HOSTS = uuid.UUID("3c2e9a0e-6f7e-5d6f-8a53-5c2a5f6a2a11")

_LIBVIRTD = """\
host_uuid = "{uuid}"
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
auth_unix_rw = "none"
"""

_QEMU = """\
user = "root"
group = "root"
stdio_handler = "file"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
migration_address = "{address}"
migration_host = "{address}"
"""

_ACCOUNTS = {
    "/etc/passwd": "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin",
    "/etc/group": "libvirt-qemu:x:64055:",
}


def write_libvirt_files(directory: pathlib.Path, name: str, address: str) -> None:
    """Writes libvirtd.conf and qemu.conf for the host `name` with a management `address`."""
    host_uuid = uuid.uuid5(_HOSTS, name)
    (directory / "libvirtd.conf").write_text(_LIBVIRTD.format(uuid=host_uuid, address=address))
    (directory / "qemu.conf").write_text(_QEMU.format(address=address))


def write_machine_files(directory: pathlib.Path, name: str, address: str) -> dict[str, str]:
    """Copies of the machine's files with what libvirt wants and the machine may lack.

    Accounts: libvirt's package with the system service would make them, but also start that
    service. Names: libvirt looks its host up at each migration, and there is no resolver.
    Returns what to mount where: the path inside a host, and the file outside.
    """
    hosts = directory / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n::1 localhost\n{address} {name}\n")
    binds = {"/etc/hosts": str(hosts)}
    for inside, line in _ACCOUNTS.items():
        text = pathlib.Path(inside).read_text()
        if not any(entry.startswith("libvirt-qemu:") for entry in text.splitlines()):
            text = text.rstrip("\n") + f"\n{line}\n"
        copy = directory / pathlib.Path(inside).name
        copy.write_text(text)
        binds[inside] = str(copy)
    return binds


def write_hook(directory: pathlib.Path, command: Sequence[str], name: str) -> None:
    """Installs a qemu hook that becomes `command` with libvirt's arguments behind it."""
    hooks = directory / "hooks" / "qemu.d"
    hooks.mkdir(parents=True, exist_ok=True)
    script = hooks / name
    script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    script.chmod(0o755)
