"""The guest's kernel: Debian's cloud kernel, downloaded and unpacked, never installed."""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from .errors import LabError

METAPACKAGE = "linux-image-cloud-amd64"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """`version` as `uname -r` says it, the bootable image, and the tree of its modules."""

    version: str
    vmlinuz: pathlib.Path
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
    return Kernel(version, vmlinuz, vmlinuz.parents[1] / "lib" / "modules" / version)


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
