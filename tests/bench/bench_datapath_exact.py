"""The datapath beside its peers, OVS's kernel datapath too, without noise.

QEMU counts instructions, and one is one nanosecond of the guest's time, so a figure is the same
whatever else the machine does. The kernel is Debian's 6.1 cloud kernel with its modules.
PEERS and KINDS, lists with commas, restrict it to some: `PEERS=bridge,vnet KINDS=frames`.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence

import comparison
import exact_image
import result
from sandbox import BenchError

#: Seconds of real time after which the guest is given up.
TIMEOUT = 1500


def choose(variable: str, known: Iterable[str]) -> list[str]:
    """What the environment's list names; all when it is not set."""
    words = [word for word in os.environ.get(variable, "").split(",") if word]
    if unknown := set(words) - set(known):
        raise BenchError(f"{variable}: no {', '.join(sorted(unknown))}; {', '.join(known)} are")
    return words or list(known)


def run_guest(rounds: int, count: int, kinds: Sequence[str], peers: Sequence[str]) -> str:
    """The guest's console."""
    arguments = f"{rounds} {count} {','.join(kinds)} {','.join(peers)}"
    kernel = exact_image.find()
    with tempfile.TemporaryDirectory() as name:
        initrd = exact_image.make(kernel, pathlib.Path(name), arguments)
        done = subprocess.run(
            [
                *(
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    "qemu-system-x86_64",
                    "-accel",
                    "tcg",
                    "-cpu",
                    "max",
                    "-smp",
                    "1",
                ),
                *("-icount", "shift=0,sleep=off", "-m", "2048", "-nographic", "-no-reboot"),
                *("-nic", "none", "-kernel", str(kernel.bootable), "-initrd", str(initrd)),
                *("-append", "console=ttyS0 quiet panic=-1"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    return done.stdout


def parse_console(console: str) -> tuple[dict[tuple[str, str], list[float]], dict[str, str]]:
    """Values by peer and kind, and what failed by peer; BenchError when the guest did not end."""
    found: dict[tuple[str, str], list[float]] = {}
    failed: dict[str, str] = {}
    lines = [line.strip() for line in console.splitlines()]
    if "END" not in lines:
        raise BenchError(f"the guest did not come to its end:\n{console[-4000:]}")
    for line in lines:
        word, _, text = line.partition(" ")
        if word == "FIGURE":
            figure = json.loads(text)
            found[figure["peer"], figure["kind"]] = figure["values"]
        elif word == "PROBLEM":
            problem = json.loads(text)
            failed[problem["peer"]] = problem["error"]
    return found, failed


def main() -> None:
    rounds, count = (2, 2_000) if result.is_quick() else (5, 20_000)
    kinds = choose("KINDS", comparison.EXACT_NAMES)
    peers = choose("PEERS", comparison.EXACT_PEERS)
    console = run_guest(rounds, count, kinds, peers)
    (result.BUILD / "datapath-exact.console").write_text(console)
    found, failed = parse_console(console)
    result.write("datapath-exact", comparison.make_exact_rows(found))
    if failed:
        text = "\n".join(f"{peer}: {error}" for peer, error in failed.items())
        raise BenchError(f"not measured:\n{text}")


if __name__ == "__main__":
    # As for Ctrl-C: QEMU ends, and what it booted is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        main()
    except BenchError as error:
        sys.exit(f"bench: {error}")
