"""What QEMU boots for the exact bench: Debian's 6.1 cloud kernel, and in an initramfs its network
modules, the peers' programs, Python and this checkout.
"""

import pathlib
import shutil
import subprocess
import sysconfig

import load
import taps
from sandbox import BenchError, command

from devstack.lab.cache import cache_directory, cache_lock
from devstack.lab.kernel import Kernel, find_kernel

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = (
    "/usr/bin/python3.11", "/bin/ip", "/usr/sbin/tc", "/usr/sbin/nft", "/usr/bin/nsenter",
    "/usr/sbin/xtables-nft-multi", "/usr/sbin/xtables-legacy-multi",
    "/usr/sbin/ovs-vswitchd", "/usr/sbin/ovsdb-server",
    "/usr/bin/ovsdb-tool", "/usr/bin/ovs-vsctl", "/usr/bin/ovs-ofctl",
)  # fmt: skip
#: Names that point to one of them, and what busybox does.
LINKS = {
    "iptables-nft-restore": "xtables-nft-multi",
    "iptables-legacy-restore": "xtables-legacy-multi",
    **dict.fromkeys(("sh", "mount", "modprobe", "poweroff", "mkdir", "uname"), "busybox"),
}
#: Of the kernel's modules: net/ whole, and what it depends on.
MODULES = ("net", "lib", "drivers/net/tun.ko", "drivers/net/veth.ko", "crypto", "arch/x86/crypto")
#: What the driver imports; the rest of the environment is for other programs.
PACKAGES = (
    "idna", "msgspec", "netaddr", "oslo_config", "rfc3986", "stevedore", "typing_extensions.py",
    "oslo_i18n", "yaml",
)  # fmt: skip
SKIPPED = (
    "test",
    "idlelib",
    "ensurepip",
    "lib2to3",
    "tkinter",
    "turtledemo",
    "pydoc_data",
    "config-*",
)

INIT = """#!/bin/busybox sh
export PATH=/bin LD_LIBRARY_PATH=/lib PYTHONHOME=/usr PYTHONPATH=/bench/tests/bench:/bench:/site
export PYTHONDONTWRITEBYTECODE=1
mkdir -p /proc /sys /dev /run /tmp /etc
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mkdir -p /run/bpf
mount -t bpf bpf /run/bpf
modprobe tun
modprobe openvswitch
python3.11 /bench/tests/bench/exact_guest.py {arguments}
poweroff -f
"""


def find() -> Kernel:
    cache = cache_directory()
    with cache_lock(cache):
        return find_kernel(cache)


def make(kernel: Kernel, directory: pathlib.Path, arguments: str) -> pathlib.Path:
    """The initramfs, made in `directory`; exact_guest.py gets the arguments."""
    root = directory / "root"
    for name in ("bin", "sbin", "lib", "usr/lib", "site", "bench/tests"):
        (root / name).mkdir(parents=True)
    (root / "lib64").symlink_to("lib")
    _copy_programs(root)
    copy_python(root)
    _copy_modules(root, kernel)
    (root / "init").write_text(INIT.format(arguments=arguments))
    (root / "init").chmod(0o755)
    initrd = directory / "initrd"
    # Not compressed: an emulated processor takes longer to unpack than QEMU to load.
    subprocess.run(f"find . | cpio -o -H newc --quiet >{initrd}", shell=True, cwd=root, check=True)
    shutil.rmtree(root)
    return initrd


def _copy_programs(root: pathlib.Path) -> None:
    for program in PROGRAMS:
        if not pathlib.Path(program).exists():
            raise BenchError(f"{program} is missing: devstack/setup.sh bench")
        shutil.copy(program, root / "bin")
        copy_libraries(root, program)
    shutil.copy("/bin/busybox", root / "bin")
    for name, target in LINKS.items():
        (root / "bin" / name).symlink_to(target)
    # What the kernel calls for a module that it misses.
    (root / "sbin" / "modprobe").symlink_to("../bin/busybox")
    for tool in (load.build(), taps.build()):
        (root / "bench/build/bench").mkdir(parents=True, exist_ok=True)
        shutil.copy2(tool, root / "bench/build/bench")
    _copy_tree(
        root, pathlib.Path("/usr/lib") / command("gcc", "-print-multiarch").strip() / "xtables"
    )
    schemas = pathlib.Path("/usr/share/openvswitch")
    (root / "usr/share/openvswitch").mkdir(parents=True)
    shutil.copy(schemas / "vswitch.ovsschema", root / "usr/share/openvswitch")


def _copy_tree(root: pathlib.Path, tree: pathlib.Path, *skipped: str) -> None:
    """A directory of this machine at its own place."""
    shutil.copytree(
        tree,
        root / str(tree).lstrip("/"),
        symlinks=True,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns(*skipped),
    )


def copy_libraries(root: pathlib.Path, program: str | pathlib.Path) -> None:
    for word in command("ldd", str(program)).split():
        if word.startswith("/") and not (root / "lib" / pathlib.Path(word).name).exists():
            shutil.copy(word, root / "lib")


def copy_python(root: pathlib.Path) -> None:
    """Debian's Python, what the driver imports, and this checkout's part of it."""
    _copy_tree(root, pathlib.Path("/usr/lib/python3.11"), *SKIPPED)
    site = pathlib.Path(sysconfig.get_path("purelib"))
    for package in PACKAGES:
        source = site / package
        if source.is_dir():
            shutil.copytree(source, root / "site" / package)
        elif source.exists():
            shutil.copy2(source, root / "site")
    for part in ("vnet_agent", "tests/bench"):
        shutil.copytree(ROOT / part, root / "bench" / part)
    for tree in ("usr/lib/python3.11/lib-dynload", "site", "bench"):
        for library in (root / tree).rglob("*.so"):
            copy_libraries(root, library)


def _copy_modules(root: pathlib.Path, kernel: Kernel) -> None:
    target = root / "lib/modules" / kernel.version
    for part in MODULES:
        source = kernel.modules / "kernel" / part
        if source.is_dir():
            shutil.copytree(source, target / "kernel" / part)
        elif source.exists():
            (target / "kernel" / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / "kernel" / part)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(kernel.modules / name, target)
    command("/usr/sbin/depmod", "-b", str(root), kernel.version)
