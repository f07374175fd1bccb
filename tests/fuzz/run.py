"""Run every fuzz target beside this file for a bounded time, each from its corpus.

Usage: python tests/fuzz/run.py --seconds 10 [TARGET ...]

A target is `fuzz_NAME.py`; it takes libFuzzer's arguments (`-max_total_time=N CORPUS`). New inputs
go to build/fuzz/NAME, never into the committed corpus; a crash is kept there and named.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run_target(path: Path, seconds: int) -> bool:
    name = path.stem.removeprefix("fuzz_")
    found = HERE.parents[1] / "build" / "fuzz" / name
    found.mkdir(parents=True, exist_ok=True)
    corpus = HERE / "corpus" / name
    argv = [
        sys.executable,
        str(path),
        f"-max_total_time={seconds}",
        f"-artifact_prefix={found}/",
        str(found),
        *([str(corpus)] if corpus.is_dir() else []),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 120)
    lines = (done.stderr or done.stdout).strip().splitlines()
    outcome = "FAILED" if done.returncode else "ok"
    print(f"fuzz {name}: {outcome}: {lines[-1] if lines else ''}")
    if done.returncode:
        print("\n".join(lines[-40:]), file=sys.stderr)
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("targets", nargs="*")
    options = parser.parse_args()
    targets = [
        path
        for path in sorted(HERE.glob("fuzz_*.py"))
        if not options.targets or path.stem.removeprefix("fuzz_") in options.targets
    ]
    if not targets:
        sys.exit("no such fuzz target")
    passed = [run_target(path, options.seconds) for path in targets]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
