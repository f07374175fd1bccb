"""The rules and frames that the classifier's bench makes, and how it reads its drivers."""

import struct
from pathlib import Path

import bench_classifier
import classbench
import pytest
from twin_classifier import Search

from vnet_agent.datapath import _flowcache as c


@pytest.mark.parametrize("kind", classbench.KINDS)
def test_rules_are_different_and_each_frame_matches_one(kind: str) -> None:
    rules = classbench.make_rules(kind, 300)
    assert len(set(rules)) == 300
    assert rules == classbench.make_rules(kind, 300)
    assert rules != classbench.make_rules(kind, 300, seed=2)
    search = Search(miss=-1)
    for number, five in enumerate(rules):
        search.insert(number, classbench.as_rule(five, len(rules) - number, number))
    for frame in classbench.make_frames(rules, 100):
        assert search.lookup(frame)[0] != -1


def test_more_specific_rules_come_first() -> None:
    lengths = [rule.source[1] + rule.destination[1] for rule in classbench.make_rules("ipc", 200)]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("kind", classbench.KINDS)
def test_figures_of_a_kind_are_sound(kind: str) -> None:
    figures = classbench.KINDS[kind]
    assert [len(levels) for levels in (*figures.branching, figures.follow)] == [32] * 3
    assert sum(weight for weight, _ in figures.traffic) == pytest.approx(100, abs=2)
    classes = {f"{source} {destination}" for _, (_, source, destination) in figures.traffic}
    assert set(figures.lengths) - {""} <= classes


def test_driver_reads_structs_of_their_sizes(tmp_path: Path) -> None:
    rules = classbench.make_rules("fw", 20)
    classbench.write_work(tmp_path / "work", rules, list(classbench.make_frames(rules, 30)))
    packed = (tmp_path / "work").read_bytes()
    assert struct.unpack_from("=II", packed) == (20, 30)
    assert len(packed) == 8 + 20 * c.LAYOUT["match"][""][1] + 30 * c.LAYOUT["fields"][""][1]


def test_first_of_two_lines_of_a_name_counts() -> None:
    assert bench_classifier.parse("load 1 2\nvisited-mean 3.5\nload 9\n") == {
        "load": [1.0, 2.0],
        "visited-mean": [3.5],
    }
