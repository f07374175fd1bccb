"""The guest's kernel: Debian's cloud kernel, downloaded and unpacked, never installed."""

import dataclasses
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile

from .errors import LabError

LZ4_LEGACY = bytes.fromhex("02214c18")
METAPACKAGE = "linux-image-cloud-amd64"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """`version` as `uname -r` says it, what QEMU boots, and the tree of its modules."""

    version: str
    bootable: pathlib.Path
    modules: pathlib.Path

    def module(self, name: str) -> pathlib.Path:
        """The file of a module by its name without .ko."""
        for path in self.modules.rglob(f"{name}.ko"):
            return path
        raise LabError(f"the guest's kernel {self.version} has no module {name}")


def find_kernel(cache: pathlib.Path) -> Kernel:
    """The kernel in the cache, downloaded when there is none. Hold the cache's lock."""
    kernels = cache / "kernel"
    if not list(kernels.glob("*/boot/vmlinuz-*")):
        _download(kernels)
    vmlinuz = max(kernels.glob("*/boot/vmlinuz-*"), key=lambda path: path.stat().st_mtime_ns)
    version = vmlinuz.name.removeprefix("vmlinuz-")
    modules = vmlinuz.parents[1] / "lib" / "modules" / version
    return Kernel(version, _unpack(vmlinuz) or vmlinuz, modules)


def _unpack(vmlinuz: pathlib.Path) -> pathlib.Path | None:
    """The ELF image out of a bzImage, which QEMU boots too (PVH); None when it cannot be had.

    An emulated processor takes four seconds to unpack it at each reboot, since it writes over
    pages that held code. The offsets are those of Documentation/arch/x86/boot.rst.
    """
    vmlinux = vmlinuz.with_name(vmlinuz.name.replace("vmlinuz", "vmlinux"))
    if vmlinux.exists():
        return vmlinux
    content = vmlinuz.read_bytes()
    offset, length = struct.unpack_from("<II", content, 0x248)
    start = (content[0x1F1] + 1) * 512 + offset
    payload = content[start : start + length - 4]  # the last four bytes are the size
    if not payload.startswith(LZ4_LEGACY) or not shutil.which("lz4"):
        return None
    unpacked = subprocess.run(["lz4", "-dc"], input=payload, capture_output=True, check=True)
    made = vmlinux.with_suffix(".new")
    made.write_bytes(unpacked.stdout)
    os.replace(made, vmlinux)
    return vmlinux


def _download(kernels: pathlib.Path) -> None:
    kernels.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kernels) as name:
        directory = pathlib.Path(name)
        try:
            package = _fetch(directory)
        except subprocess.CalledProcessError:
            # Package lists that are missing or older than the archive: once anew, as root only.
            if os.geteuid() == 0:
                subprocess.run(["apt-get", "-q", "update"], capture_output=True, check=False)
            try:
                package = _fetch(directory)
            except subprocess.CalledProcessError as error:
                raise LabError(
                    f"the guest's kernel cannot be downloaded: {' '.join(error.cmd)}: "
                    f"{error.stderr.strip()}; try `apt-get update`"
                ) from None
        unpacked = directory / "unpacked"
        subprocess.run(["dpkg", "-x", package, unpacked], check=True)
        shutil.move(unpacked, kernels / package.name.removesuffix(".deb"))


def _fetch(directory: pathlib.Path) -> pathlib.Path:
    depends = _run(directory, "apt-cache", "depends", METAPACKAGE)
    found = re.search(r"Depends: (linux-image-\S+-cloud-amd64)$", depends, re.MULTILINE)
    if not found:
        raise subprocess.CalledProcessError(
            1, ["apt-cache", "depends", METAPACKAGE], stderr="it names no kernel"
        )
    _run(directory, "apt-get", "-q", "download", found[1])
    return next(directory.glob("*.deb"))


def _run(directory: pathlib.Path, *argv: str) -> str:
    result = subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=True)
    return result.stdout
