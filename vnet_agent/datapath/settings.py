"""What holds for all ports of a host: how long connections last, and strictness."""

import struct

from oslo_config import cfg

from vnet_agent.datapath import layout
from vnet_agent.datapath._flowcache import LAYOUT, SETTINGS_STRICT, STATE_SECONDS, STATES

_LIVES = struct.Struct(f"={LAYOUT['settings']['life_ns'][1] // 8}Q")


def option_name(state: str) -> str:
    """Of the time-out of a state, such as `timeout_syn_sent`."""
    return "timeout_" + state.replace("-", "_")


def pack_settings(conf: cfg.ConfigOpts | None) -> bytes:
    """A struct settings from `[datapath]`; without configuration the defaults."""
    seconds = list(STATE_SECONDS)
    flags = opening = openings = 0
    if conf is not None:
        for number, state in enumerate(STATES):
            if seconds[number]:
                seconds[number] = conf.datapath[option_name(state)]
        flags = SETTINGS_STRICT * (conf.datapath.tcp_window == "strict")
        if conf.datapath.half_open_limit:
            opening = 1_000_000_000 // conf.datapath.half_open_rate
            openings = opening * conf.datapath.half_open_limit
    lives = [value * 1_000_000_000 for value in seconds]
    lives += [0] * (_LIVES.size // 8 - len(lives))
    return layout.pack(
        "settings",
        life_ns=_LIVES.pack(*lives),
        flags=flags,
        opening_ns=opening,
        openings_ns=openings,
    )


def read_lives(settings: bytes) -> tuple[int, ...]:
    """Seconds that each state lasts without a frame, by its number."""
    lives = _LIVES.unpack(layout.raw("settings", "life_ns", settings))
    return tuple(life // 1_000_000_000 for life in lives)
