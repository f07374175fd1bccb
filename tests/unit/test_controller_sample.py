"""The sample configuration is what the options say."""

import subprocess
import sys
from pathlib import Path

from vnet_controller import config

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "etc" / "controller.conf.sample"


def test_the_sample_is_fresh(tmp_path: Path) -> None:
    fresh = tmp_path / "sample"
    generator = "from oslo_config.generator import main; main()"
    arguments = ["--config-file", "etc/oslo-config-generator/controller.conf"]
    subprocess.run(
        [sys.executable, "-c", generator, *arguments, "--output-file", str(fresh)],
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    hint = "run: oslo-config-generator --config-file etc/oslo-config-generator/controller.conf"
    assert fresh.read_text() == SAMPLE.read_text(), hint


def test_the_sample_can_be_used() -> None:
    conf = config.load(["--config-file", str(SAMPLE)])
    assert (conf.listen_address, conf.listen_port) == ("127.0.0.1", 7470)
    assert conf.database.connection == "sqlite+aiosqlite:////var/lib/vnet/controller.db"
