"""Builds what a guest boots: an initramfs of busybox, a few modules and the traffic tool.

Everything is named by the hash of what it is made of, so that a second call finds it made and a
changed source makes it anew.
"""

import dataclasses
import os
import pathlib
import shutil
import stat
import subprocess

from .cache import cache_directory, cache_lock, content_hash
from .errors import LabError
from .kernel import Kernel, find_kernel

SOURCES = pathlib.Path(__file__).with_name("guest")
#: In the order of their dependencies, which the guest loads without modprobe.
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
    "evdev",
    "button",
    "pvpanic-mmio",
    "pvpanic-pci",
)
APPLETS = (
    "sh", "cat", "echo", "hostname", "insmod", "ip", "ls", "mkdir", "mount", "ping", "ps", "sed",
    "sleep", "tr",
)  # fmt: skip
COMPILE = ("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s")


@dataclasses.dataclass(frozen=True)
class Image:
    """What the lab boots and runs: `traffic` is the same tool for peers outside of guests."""

    kernel: pathlib.Path
    initrd: pathlib.Path
    traffic: pathlib.Path
    kernel_version: str


def build_image(cache: pathlib.Path | None = None) -> Image:
    """Makes what is missing and returns where it is; raises LabError with what to install."""
    cache = cache or cache_directory()
    with cache_lock(cache):
        kernel = find_kernel(cache)
        traffic = build_traffic(cache)
        initrd = _build_initrd(cache, kernel, traffic)
    return Image(kernel.bootable, initrd, traffic, kernel.version)


def build_traffic(cache: pathlib.Path) -> pathlib.Path:
    """The traffic tool alone, compiled for guests and for this machine."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    name = content_hash([*(path.read_bytes() for path in sources), " ".join(COMPILE).encode()])
    traffic = cache / f"traffic-{name}"
    if traffic.exists():
        return traffic
    if not shutil.which("gcc"):
        raise LabError("gcc is missing: apt-get install build-essential")
    made = traffic.with_suffix(".new")
    files = [str(path) for path in sources if path.suffix == ".c"]
    result = subprocess.run(
        [*COMPILE, "-o", str(made), *files], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise LabError(f"the traffic tool does not compile:\n{result.stderr}")
    _replace(cache, "traffic-*", made, traffic)
    return traffic


def _build_initrd(cache: pathlib.Path, kernel: Kernel, traffic: pathlib.Path) -> pathlib.Path:
    names = ("pvpanic", *MODULES)
    files = {f"modules/{name}.ko": kernel.module(name).read_bytes() for name in names}
    files |= {
        "bin/busybox": _busybox().read_bytes(),
        "init": (SOURCES / "init").read_bytes(),
        "sbin/network": (SOURCES / "network").read_bytes(),
        "sbin/traffic": traffic.read_bytes(),
        "modules/order": "".join(f"{name}\n" for name in names).encode(),
    }
    archive = build_archive(files, {f"bin/{applet}": "busybox" for applet in APPLETS})
    initrd = cache / f"initrd-{content_hash([archive])}.cpio"
    if not initrd.exists():
        made = initrd.with_suffix(".new")
        made.write_bytes(archive)
        _replace(cache, "initrd-*.cpio", made, initrd)
    return initrd


def _busybox() -> pathlib.Path:
    """Debian's static busybox; one that needs a loader would not start in the guest."""
    found = shutil.which("busybox", path="/bin:/usr/bin")
    if not found or b"/ld-linux" in pathlib.Path(found).read_bytes()[:4096]:
        raise LabError("a static busybox is missing: apt-get install busybox-static")
    return pathlib.Path(found)


def _replace(cache: pathlib.Path, old: str, made: pathlib.Path, final: pathlib.Path) -> None:
    """Puts `made` in place and drops what older sources made, unless a guest may still use it."""
    os.replace(made, final)
    others = [path for path in cache.glob(old) if path != final]
    for path in sorted(others, key=lambda path: path.stat().st_mtime_ns)[:-3]:
        path.unlink()


def build_archive(files: dict[str, bytes], links: dict[str, str]) -> bytes:
    """A cpio archive in the kernel's `newc` format, the same bytes for the same content.

    It is not compressed: an emulated processor takes longer to unpack than QEMU to load.
    """
    directories = {str(parent) for name in files for parent in pathlib.PurePath(name).parents}
    directories |= {"dev", "proc", "sys", "tmp"}
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in sorted(directories - {"."})]
    entries += [(name, stat.S_IFREG | 0o755, files[name]) for name in sorted(files)]
    entries += [(name, stat.S_IFLNK | 0o777, links[name].encode()) for name in sorted(links)]
    entries.append(("TRAILER!!!", 0, b""))
    return b"".join(_entry(i + 1, *entry) for i, entry in enumerate(entries))


def _entry(inode: int, name: str, mode: int, data: bytes) -> bytes:
    # inode, mode, uid, gid, links, mtime, size, 4 device numbers, length of the name, checksum
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    header = b"070701" + "".join(f"{field:08X}" for field in fields).encode()
    return _padded(header + name.encode() + b"\0") + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
