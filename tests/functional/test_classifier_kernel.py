"""The classifier's look-up in this kernel: right answers, at rest and while rules change."""

import subprocess
from pathlib import Path

CSRC = Path(__file__).resolve().parents[2] / "csrc"


def test_kernel_answers_as_a_search_does_while_rules_change(tmp_path: Path) -> None:
    subprocess.run(["make", "-s", "-C", str(CSRC), f"BUILD={tmp_path}", "kernel"], check=True)
    done = subprocess.run(
        [tmp_path / "kernel_classifier"], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, "classifier in the kernel: ok\n"), done.stderr
