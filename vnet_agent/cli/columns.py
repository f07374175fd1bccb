"""Values that people read in one way and programs in another."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cliff.columns import FormattableColumn


class Nested(FormattableColumn[Any]):
    """A list, a mapping or a truth: text in a table, itself in JSON."""

    def human_readable(self) -> str:
        return _text(self._value)

    def machine_readable(self) -> Any:
        return self._value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        said = {key: text for key, item in value.items() if (text := _text(item))}
        return ", ".join(f"{key}={text}" for key, text in said.items())
    if isinstance(value, list):
        joint = "\n" if any(isinstance(item, Mapping) for item in value) else ", "
        return joint.join(_text(item) for item in value)
    return str(value)


def show_value(value: Any) -> Any:
    is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return value if is_plain else Nested(value)


def show_rows(
    columns: tuple[str, ...], rows: Iterable[Mapping[str, Any]]
) -> tuple[tuple[str, ...], Iterator[tuple[Any, ...]]]:
    """What a Lister returns: the given columns of each row, when it is its turn."""
    return columns, (tuple(show_value(row.get(name)) for name in columns) for row in rows)


def show_fields(fields: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """What a ShowOne returns: every field."""
    return list(fields), [show_value(value) for value in fields.values()]
