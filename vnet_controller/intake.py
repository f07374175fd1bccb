"""The door for events: bytes of a request become typed events, or a problem that says where."""

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from vnet_agent.model.event import Event
from vnet_controller.problem import Problem

JSON = "application/json"
SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"

HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}\Z")

_PREFIX = "/hosts/"
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SEQUENCE = re.compile(r"[0-9A-Za-z]{1,64}\Z", re.ASCII)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_YEAR_9999_US = 253_370_764_800_000_000
_LARGEST = 2**63 - 1

_batch = msgspec.json.Decoder(list[msgspec.Raw])
_event = msgspec.json.Decoder(Event)


@dataclass(frozen=True, slots=True)
class Incoming:
    """An event that was checked. `body` is its JSON, as it is stored and given out."""

    event: Event
    host: str
    time_us: int
    body: str


@dataclass(frozen=True, slots=True)
class Limits:
    events: int
    event_size: int


def decode_events(body: bytes, content_type: str, limits: Limits) -> list[Incoming]:
    """The events of one request, in order; raises Problem, and then none of them counts."""
    if content_type not in (JSON, SINGLE, BATCH):
        raise Problem(415, f"Send events as {JSON}, {SINGLE} or {BATCH}, not {content_type}.")
    is_batch = body.lstrip(b" \t\r\n")[:1] == b"["
    if is_batch and content_type == SINGLE:
        raise Problem(400, f"{SINGLE} is one event; send a batch as {BATCH} or {JSON}.")
    if not is_batch and content_type == BATCH:
        raise Problem(400, f"{BATCH} is an array of events; send one event as {SINGLE} or {JSON}.")
    items = _split(body) if is_batch else [msgspec.Raw(body)]
    if len(items) > limits.events:
        raise Problem(413, f"{len(items)} events in one request; at most {limits.events} may be.")
    return [_decode_one(index, raw, limits.event_size) for index, raw in enumerate(items)]


def _split(body: bytes) -> Sequence[msgspec.Raw]:
    try:
        return _batch.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"The body is no JSON array of events: {error}") from None


def _decode_one(index: int, raw: msgspec.Raw, size: int) -> Incoming:
    if len(memoryview(raw)) > size:
        raise _bad(index, None, f"has {len(memoryview(raw))} bytes; at most {size} may be")
    try:
        event = _event.decode(raw)
    except msgspec.ValidationError as error:
        raise _bad(index, find_field(str(error)), str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(index, None, f"is no JSON object: {error}") from None
    for field, text, longest in (
        ("id", event.id, 512),
        ("source", event.source, 300),
        ("subject", event.subject if event.subject is not None else "-", 256),
    ):
        if not text or len(text) > longest or _CONTROL.search(text):
            raise _bad(index, field, f"must be 1 to {longest} characters, none of them control")
    host = event.source.removeprefix(_PREFIX)
    if not event.source.startswith(_PREFIX) or not HOST.match(host):
        raise _bad(index, "source", f"must be {_PREFIX}HOST with the name of a host")
    if event.specversion != "1.0":
        raise _bad(index, "specversion", "must be 1.0")
    if event.datacontenttype != JSON:
        raise _bad(index, "datacontenttype", f"must be {JSON}")
    if not 0 <= event.epoch <= _LARGEST:
        raise _bad(index, "epoch", "must be a number of 63 bits, not negative")
    if not _SEQUENCE.match(event.sequence):
        raise _bad(index, "sequence", "must be 1 to 64 digits or letters")
    time_us = parse_time(event.time)
    if time_us is None:
        raise _bad(index, "time", "must be a time as in RFC 3339, with its offset")
    return Incoming(event, host, time_us, msgspec.json.encode(event).decode())


def parse_time(text: str) -> int | None:
    """Microseconds since 1970 of an RFC 3339 time; None where it is none, or out of range."""
    if not _TIME.match(text):
        return None
    try:
        moment = datetime.datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    time_us = (moment - _EPOCH) // datetime.timedelta(microseconds=1)
    return time_us if 0 <= time_us < _YEAR_9999_US else None


def find_field(message: str) -> str | None:
    """The field that a message of msgspec is about: the one missing, or the path's end."""
    missing = re.search(r"(?:missing required|unknown) field `([^`]*)`", message)
    path = re.search(r"at `\$\.?([^`]*)`", message)
    parts = [part.group(1) for part in (path, missing) if part and part.group(1)]
    return ".".join(parts) or None


def _bad(index: int, field: str | None, detail: str) -> Problem:
    where = f"Event {index}" + (f", field {field}" if field else "")
    return Problem(400, f"{where}: {detail}.", index=index, field=field)
