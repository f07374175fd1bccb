"""JSON of a listing goes out row by row, and is what cliff would have written."""

import argparse
import io

import pytest
from cliff.formatters.json_format import JSONFormatter

from vnet_agent.cli.columns import show_rows
from vnet_agent.cli.streamed import StreamedJson

COLUMNS = ("name", "count", "fresh", "tags", "note")
ROWS = [
    {"name": 'a "b"\nc', "count": 1, "fresh": True, "tags": ["x", {"y": 2}], "note": None},
    {"name": "é", "count": 2.5, "fresh": False, "tags": []},
]


@pytest.mark.parametrize("noindent", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_same_bytes(noindent, count):
    args = argparse.Namespace(noindent=noindent)
    written = []
    for formatter in (JSONFormatter(), StreamedJson()):
        out = io.StringIO()
        formatter.emit_list(*show_rows(COLUMNS, ROWS[:count]), out, args)
        written.append(out.getvalue())
    assert written[0] == written[1]


def test_a_row_is_written_before_the_next_is_there():
    out, seen = io.StringIO(), []

    def rows():
        for row in ROWS:
            yield row
            seen.append(out.getvalue().count("count"))

    StreamedJson().emit_list(*show_rows(COLUMNS, rows()), out, argparse.Namespace(noindent=True))
    assert seen == [1, 2]
