"""An agent's datapath of the version before, for a test to come from.

The same sources, compiled with VNET_AS_V1 (csrc/core/abi_v1.h): maps, programs and extension have
that version's layouts. As a program it is datapath_keeper.py with that extension:

    previous_version.py EXTENSION PIN_DIR JSON
"""

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NAME = "vnet_agent.datapath._flowcache"


def build(directory: Path) -> Path:
    """The extension."""
    csrc = ROOT / "csrc"
    make = ["make", "-s", "-C", str(csrc), f"BUILD={directory}", "DEFINES=-DVNET_AS_V1"]
    subprocess.run([*make, "skeleton"], check=True)
    extension = directory / "_flowcache.abi3.so"
    includes = [sysconfig.get_path("include"), directory, *(csrc / n for n in ROOMS)]
    sources = [path for room in ("ext", "native") for path in (csrc / room).glob("*.c")]
    subprocess.run(
        [
            *("gcc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-pthread", "-DVNET_AS_V1"),
            *("-DPy_LIMITED_API=0x030b0000", "-o", str(extension)),
            *(f"-I{path}" for path in includes),
            *map(str, sources),
            "-lbpf",
        ],
        check=True,
    )
    return extension


ROOMS = ("ext", "native", "core")


def start(extension: Path, pin_dir: str, wanted: dict[str, Any]) -> "subprocess.Popen[str]":
    """Its agent, once it has said everything; it waits to be killed."""
    agent = subprocess.Popen(
        [sys.executable, __file__, str(extension), pin_dir, json.dumps(wanted)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert agent.stdout is not None
    assert agent.stdout.readline() == "ready\n"
    return agent


def load(extension: str) -> None:
    """Instead of this version's."""
    loader = importlib.machinery.ExtensionFileLoader(NAME, extension)
    spec = importlib.util.spec_from_loader(NAME, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    # What lists connections checks where their parts are; nobody lists any here.
    module.LAYOUT["conn"]["bytes"] = (32, 16)
    package = importlib.import_module("vnet_agent.datapath")
    sys.modules[NAME] = module
    package._flowcache = module


if __name__ == "__main__":
    load(sys.argv.pop(1))
    import datapath_keeper

    datapath_keeper.main()
