"""What a frame costs is kept in the repository, and changes only openly: by a change of that file.

Instructions in QEMU, so that the figure is the same on every machine and however busy it is.
"""

import json
from pathlib import Path
from statistics import median

import bench_datapath_exact as bench
import comparison

KEPT = Path(bench.__file__).with_name("kept.json")
#: Of the kept figure.
TOLERANCE = 0.02


def test_a_frame_costs_what_is_kept() -> None:
    console = bench.run_guest(2, 2_000, list(comparison.FRAME_NAMES), ["vnet"])
    found, failed = bench.parse_console(console)
    assert not failed
    measured = {row.name: median(row.values) for row in comparison.make_exact_rows(found)}
    for name, kept in json.loads(KEPT.read_text()).items():
        growth = measured[name] / kept - 1
        # What has become cheaper must be kept too, or it may be lost again unseen.
        assert abs(growth) <= TOLERANCE, (
            f"{name}: {measured[name]:.0f}, and {kept} in {KEPT.name}: {growth:+.1%}"
        )
