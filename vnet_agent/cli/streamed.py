"""JSON of a list as it comes: cliff's own holds all of it first."""

import argparse
import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from cliff.columns import FormattableColumn
from cliff.formatters.json_format import JSONFormatter


class StreamedJson(JSONFormatter):
    """Writes the same bytes."""

    def emit_list(
        self,
        column_names: Sequence[str],
        data: Iterable[Sequence[Any]],
        stdout: TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        before, between, end = ("[", ", ", "]") if parsed_args.noindent else ("[\n", ",\n", "\n]")
        empty = True
        for row in data:
            values = (i.machine_readable() if isinstance(i, FormattableColumn) else i for i in row)
            item = dict(zip(column_names, values, strict=True))
            stdout.write(before if empty else between)
            stdout.write(_show(item, indented=not parsed_args.noindent))
            empty = False
        stdout.write("[]\n" if empty else f"{end}\n")


def _show(item: dict[str, Any], *, indented: bool) -> str:
    return textwrap.indent(json.dumps(item, indent=2), "  ") if indented else json.dumps(item)
