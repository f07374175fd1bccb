"""The classifier through its Python type, against a search through all rules."""

import dataclasses
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_strategies import frames, rules
from twin_classifier import Rule, Search, pack_fields, pack_rule

from vnet_agent.datapath import _flowcache as c

settings.register_profile("default", max_examples=100, deadline=None)
settings.register_profile("ci", max_examples=600, deadline=None)
settings.register_profile("long", max_examples=50_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

MISS = 0xFFFFFFFF
TABLE = 3


class Both:
    """The classifier and the search, side by side."""

    def __init__(self, lines: int = 4096) -> None:
        self.classifier = c.Classifier(lines, TABLE + 1)
        self.names: dict[int, int] = {}
        self.next_name = 0
        self.replace([])

    def _name(self, entry: int) -> int:
        self.next_name += 1
        self.names[self.next_name] = entry
        return self.next_name

    def replace(self, new: list[Rule]) -> None:
        entries = self.classifier.replace(TABLE, b"".join(map(pack_rule, new)), MISS)
        self.search = Search(MISS)
        self.names = {}
        for rule, entry in zip(new, entries, strict=True):
            self.search.insert(self._name(entry), rule)

    def insert(self, rule: Rule) -> None:
        entry = self.classifier.insert(TABLE, pack_rule(rule))
        self.search.insert(self._name(entry), rule)

    def delete(self, number: int) -> None:
        if not self.names:
            return
        name = sorted(self.names)[number % len(self.names)]
        self.classifier.delete(TABLE, self.names.pop(name))
        self.search.delete(name)

    def compare(self, frame: dict[str, int]) -> None:
        action, name = self.search.lookup(frame)
        entry = self.names[name] if name is not None else 0
        assert self.classifier.lookup(TABLE, pack_fields(frame)) == (action, entry)


changes = st.one_of(
    st.tuples(st.just("insert"), rules()),
    st.tuples(st.just("insert"), rules()),
    st.tuples(st.just("delete"), st.integers(0, 1000)),
    st.tuples(st.just("rebuild"), st.none()),
    st.tuples(st.just("replace"), st.lists(rules(), max_size=12)),
)


@given(st.lists(changes, max_size=25), st.lists(frames(), min_size=1, max_size=6))
def test_every_change_leaves_what_a_search_finds(steps: list, asked: list) -> None:
    both = Both()
    for kind, argument in steps:
        if kind == "rebuild":
            both.classifier.rebuild(TABLE)
        else:
            getattr(both, kind)(argument)
        for frame in asked:
            both.compare(frame)
    assert both.classifier.check() is None


def vary(rule: Rule, number: int) -> Rule:
    """One of many rules like this one: another address, another place among them."""
    value = {**rule.value, "source": rule.value["source"] ^ number << 2}
    return dataclasses.replace(rule, value=value, priority=number * 37 % 64, action=number)


@given(
    st.lists(rules(), min_size=1, max_size=8), st.lists(frames(), max_size=8), st.integers(0, 200)
)
@settings(max_examples=40)
def test_sets_large_enough_for_a_filter(like: list[Rule], asked: list, gone: int) -> None:
    both = Both()
    loaded = [vary(like[number % len(like)], number) for number in range(200)]
    both.replace(loaded[:150])
    for rule in loaded[150:]:
        both.insert(rule)
    for number in range(gone):
        both.delete(number * 31)
    for frame in [*asked, *(dict(rule.value) for rule in loaded[::10])]:
        both.compare(frame)
    assert both.classifier.check() is None


@given(rules())
def test_a_rule_reads_back_as_it_was_given(rule: Rule) -> None:
    classifier = c.Classifier(256, 1)
    classifier.replace(0, b"", MISS)
    ports = {"source_port", "destination_port"}
    bare = dataclasses.replace(
        rule,
        value={
            name: value & rule.mask.get(name, 0)
            for name, value in rule.value.items()
            if name not in ports
        },
    )
    assert classifier.read(0, classifier.insert(0, pack_rule(rule))) == pack_rule(bare)


def test_rules_alike_share_a_subtable_though_they_come_one_by_one() -> None:
    both = Both()
    rule = Rule({"proto": 6}, {"proto": 0xFF})
    both.replace([rule])
    for number in range(10):
        both.insert(dataclasses.replace(rule, action=number))
    assert both.classifier.measure(TABLE)["subtables"] == 1


def test_a_rule_that_contradicts_itself_is_refused() -> None:
    both = Both()
    for wrong in (
        Rule({}, {}, source_ports=(2, 1)),
        Rule({}, {}, destination_ports=(80, 79)),
        Rule({}, {"source_port": 0xFFFF}),
    ):
        with pytest.raises(ValueError, match="contradicts itself"):
            both.classifier.insert(TABLE, pack_rule(wrong))
        with pytest.raises(ValueError, match="contradicts itself"):
            both.classifier.replace(TABLE, pack_rule(Rule({}, {})) + pack_rule(wrong), MISS)
    assert both.classifier.measure(TABLE)["rules"] == 0
    assert both.classifier.check() is None


def test_a_full_image_says_so_and_keeps_what_it_has() -> None:
    both = Both(lines=64)
    rule = Rule({"source": 1}, {"source": 0xFFFF})

    def fill() -> None:
        for number in range(64):
            both.insert(dataclasses.replace(rule, action=number))

    with pytest.raises(OSError, match="insert"):
        fill()
    with pytest.raises(OSError, match="replace"):
        both.classifier.replace(TABLE, pack_rule(rule) * 60, MISS)
    both.compare({"source": 1})
    assert both.classifier.check() is None


def test_sets_do_not_see_each_other_and_what_is_gone_is_an_error() -> None:
    classifier = c.Classifier(256, 2)
    entries = [
        classifier.replace(table, pack_rule(Rule({}, {}, action=table)), 9) for table in (0, 1)
    ]
    assert [classifier.lookup(table, pack_fields({}))[0] for table in (0, 1)] == [0, 1]
    classifier.remove(0)
    for call in (
        lambda: classifier.lookup(0, pack_fields({})),
        lambda: classifier.remove(0),
        lambda: classifier.rebuild(0),
        lambda: classifier.measure(0),
        lambda: classifier.delete(0, entries[0][0]),
        lambda: classifier.delete(1, 0xFFFFFFFF),
        lambda: classifier.read(1, 0),
    ):
        with pytest.raises(LookupError):
            call()
    assert classifier.lookup(1, pack_fields({})) == (1, entries[1][0])
    classifier.close()
    with pytest.raises(ValueError, match="closed"):
        classifier.lookup(1, pack_fields({}))
