"""Build the sdist and from it the wheel, install the wheel alone, load what is compiled in it.

Usage: python devstack/check_package.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

CHECK = """
import vnet_agent.datapath._flowcache as flowcache, importlib.metadata as metadata, pathlib, sys
assert pathlib.Path(flowcache.__file__).is_relative_to(sys.prefix), flowcache.__file__
assert flowcache.__file__.endswith(".abi3.so"), flowcache.__file__
flowcache.Native()
groups = {p.group for p in metadata.distribution("vnet-agent").entry_points}
assert {"console_scripts", "vnet_agent.datapath", "oslo.config.opts", "vnet.cli"} <= groups, groups
import vnet_controller, importlib.resources as resources
assert resources.files("vnet_controller").joinpath("alembic").is_dir()
print("the installed extension loads:", flowcache.__file__.rsplit("/", 1)[1])
print("its BPF object:", flowcache.bpf_object_size(), "bytes")
"""


def run(*argv: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run([str(a) for a in argv], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(str(a) for a in argv)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    if done.stdout and argv[0] != sys.executable:
        print(done.stdout, end="")


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory(prefix="vnet-package-") as name:
        out = Path(name)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out / "dist", root)
        for made in sorted((out / "dist").iterdir()):
            print(f"{made.name}: {made.stat().st_size} bytes")
        (wheel,) = (out / "dist").glob("*.whl")
        run("/usr/bin/python3", "-m", "venv", out / "venv")
        python = out / "venv/bin/python"
        run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel)
        run(python, "-c", CHECK, cwd=out)


if __name__ == "__main__":
    main()
