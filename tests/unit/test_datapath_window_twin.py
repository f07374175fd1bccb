"""TCP windows: the C core against its twin, on conversations near the edges of windows."""

import os

import twin as t
from datapath_bench import PORT, VM, VM4, VM6, Bench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from segment_strategies import conversations
from test_datapath_twin import connections, twin_connections

from vnet_agent.datapath._flowcache import LAYOUT, SETTINGS_STRICT
from vnet_agent.model.policy import ALLOW_ALL

settings.register_profile("default", max_examples=150, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def make_strict(bench: Bench) -> None:
    data = bytearray(bench.native.settings_get())
    offset, size = LAYOUT["settings"]["flags"]
    data[offset : offset + size] = SETTINGS_STRICT.to_bytes(size, "little")
    bench.native.settings_put(bytes(data))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(sequence=conversations(), strict=st.booleans())
def test_core_and_twin_agree_on_windows(sequence, strict) -> None:
    bench = Bench(ALLOW_ALL)
    twin = t.Twin(VM, (VM4, VM6), ALLOW_ALL, strict=strict)
    if strict:
        make_strict(bench)
    for step in sequence:
        match step:
            case ("sleep", seconds):
                bench.sleep(seconds)
            case (direction, frame):
                hook = 0 if direction is t.EGRESS else 1
                _, reason, _ = bench.process(hook, 5, frame)
                assert reason == twin.process(direction, frame, bench.now), frame.hex()
        assert connections(bench) == twin_connections(twin, bench.now)
    assert bench.driver.counters(PORT).drops.get("tcp-window", 0) == 0 or strict
