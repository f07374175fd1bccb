"""The sample configuration is what the options say, and bad values are refused at start."""

from pathlib import Path

import pytest
from oslo_config import cfg, generator

from vnet_agent import config

ROOT = Path(__file__).parents[2]


def test_sample_is_up_to_date(tmp_path: Path) -> None:
    sample = tmp_path / "sample"
    generator.main(
        [
            "--config-file", str(ROOT / "etc/oslo-config-generator/agent.conf"),
            "--output-file", str(sample),
        ]
    )  # fmt: skip
    assert (ROOT / "etc/agent.conf.sample").read_text() == sample.read_text(), (
        "run: oslo-config-generator --config-file etc/oslo-config-generator/agent.conf"
    )


def test_sample_changes_nothing() -> None:
    conf = config.load(["--config-file", str(ROOT / "etc/agent.conf.sample")])
    assert conf.libvirt.resync_interval == 60.0


def test_every_option_is_bounded_and_explained() -> None:
    for group, options in config.list_opts():
        for option in options:
            where = f"[{group or 'DEFAULT'}] {option.name}"
            assert (option.help or "").endswith("."), where
            if isinstance(option, cfg.IntOpt | cfg.FloatOpt):
                assert option.type.min is not None, where
                assert option.type.max is not None, where


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[libvirt]\nresync_interval = 0\n", "resync_interval.*greater than or equal to 1"),
        ("[libvirt]\nlinger = soon\n", "linger.*could not convert"),
        ("[policy]\nunbound = maybe\n", "unbound.*allow, deny"),
        ("[datapath]\nuplinks = a b\n", "uplinks.*'a b'"),
        ("[datapath]\nuplinks = eth1:vlan=7\n", "uplinks.*'eth1:vlan=7'"),
        ("no assignment\n", "Failed to parse.*no assignment"),
    ],
)
def test_wrong_values_are_refused_at_once(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "agent.conf"
    path.write_text(text)
    with pytest.raises(cfg.Error, match=f"(?s){reason}"):
        config.load(["--config-file", str(path)])
