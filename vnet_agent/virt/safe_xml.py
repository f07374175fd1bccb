"""XML from outside, read without entities, document types or unbounded trees.

The standard library's parsers expand entities, which lets a kilobyte of input become gigabytes
("billion laughs") or name files to read. A domain XML needs neither, so any document type, and
with it any entity, is refused where it starts.
"""

from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

MAX_BYTES = 2 * 1024 * 1024
MAX_DEPTH = 64
MAX_ELEMENTS = 50_000
MAX_ATTRIBUTES = 64


class UnsafeXml(ValueError):
    """The message names the reason and, where there is one, line and column."""


def parse(text: str) -> Element:
    """The root element, names as `{namespace}name`; raises UnsafeXml, and nothing else."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnsafeXml(f"not text: {error.reason}") from None
    if len(data) > MAX_BYTES:
        raise UnsafeXml(f"{len(data)} bytes are more than {MAX_BYTES}")
    return _Builder().build(data)


class _Builder:
    def __init__(self) -> None:
        self._tree = TreeBuilder()
        self._depth = 0
        self._elements = 0
        parser = expat.ParserCreate(encoding="utf-8", namespace_separator="}")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._tree.data
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.EntityDeclHandler = self._refuse_doctype
        parser.ExternalEntityRefHandler = self._refuse_doctype
        self._parser = parser

    def build(self, data: bytes) -> Element:
        try:
            self._parser.Parse(data, True)
        except expat.ExpatError as error:
            raise UnsafeXml(f"line {error.lineno}: {expat.ErrorString(error.code)}") from None
        return self._tree.close()

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"elements are nested deeper than {MAX_DEPTH}")
        if self._elements > MAX_ELEMENTS:
            self._refuse(f"more than {MAX_ELEMENTS} elements")
        if len(attributes) > MAX_ATTRIBUTES:
            self._refuse(f"more than {MAX_ATTRIBUTES} attributes")
        self._tree.start(_name(tag), {_name(key): value for key, value in attributes.items()})

    def _end(self, tag: str) -> None:
        self._depth -= 1
        self._tree.end(_name(tag))

    def _refuse_doctype(self, *_: object) -> NoReturn:
        self._refuse("document types and entities are not accepted")

    def _refuse(self, reason: str) -> NoReturn:
        raise UnsafeXml(f"line {self._parser.CurrentLineNumber}: {reason}")


def _name(tag: str) -> str:
    return "{" + tag if "}" in tag else tag
