"""What setup.cfg cannot say: the C extension with the BPF object inside."""

import pathlib
import subprocess
import sys
from typing import Any

import setuptools
from setuptools.command.build_ext import build_ext

CSRC = pathlib.Path("csrc")
FLAGS = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]


def _run(*command: str) -> str:
    """Output of a build tool; ends the build with a clear line when it is missing or fails."""
    try:
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    except FileNotFoundError:
        sys.exit(f"{command[0]} is needed to build; bindep.txt lists the Debian packages")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(command)}: exit status {error.returncode}")


class BuildExt(build_ext):
    """First the BPF object, then its skeleton, then the extension that includes it."""

    def build_extension(self, extension: Any) -> None:
        build = pathlib.Path(self.build_temp)
        build.mkdir(parents=True, exist_ok=True)
        _run("make", "-C", str(CSRC), f"BUILD={build.resolve()}", "skeleton")
        extension.include_dirs.append(str(build.resolve()))
        extension.extra_compile_args += _run("pkg-config", "--cflags", "libbpf").split()
        extension.extra_link_args += _run("pkg-config", "--libs", "libbpf").split()
        super().build_extension(extension)


class Distribution(setuptools.Distribution):
    """pbr fills `cmdclass` itself and drops what is passed there."""

    def get_command_class(self, command: str) -> Any:
        return BuildExt if command == "build_ext" else super().get_command_class(command)


flowcache = setuptools.Extension(
    "vnet_agent.datapath._flowcache",
    sources=sorted(str(path) for room in ("ext", "native") for path in (CSRC / room).glob("*.c")),
    depends=[str(path) for path in sorted(CSRC.rglob("*.[ch]"))],
    include_dirs=[str(CSRC / room) for room in ("ext", "native", "core")],
    define_macros=[("Py_LIMITED_API", "0x030b0000")],
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
    py_limited_api=True,
)

setuptools.setup(
    pbr=True,
    ext_modules=[flowcache],
    distclass=Distribution,
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
