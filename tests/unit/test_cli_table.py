"""`vnetctl table` and the API behind it, with a real datapath that has no kernel."""

import http.client
import json
import socket

import pytest
import yaml
from sight_agent import Agent

from vnet_agent.datapath.base import Driver
from vnet_agent.datapath.handlers import decompile_rule

GOOD = """\
miss: drop
rules:
- {priority: 5, match: {ip_proto: tcp, tcp_dst: 25}, actions: [drop], cookie: 7}
- {priority: 9, match: {eth_type: arp}, actions: [normal]}
- {priority: 9, match: {in_port: %s}, actions: [{goto: 4}]}
"""
AWAY = "6ba7b811-9dad-11d1-80b4-00c04fd430c8"


@pytest.fixture
def agent(tmp_path, capsys):
    agent = Agent(tmp_path, capsys)
    yield agent
    agent.stop()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(GOOD % AWAY)
    return path


def held(agent, table=3):
    found = {state.table: state for state in agent.bench.driver.tables()}
    names = {entry.local_id: entry.port for entry in agent.bench.driver.ports()}
    rules = found[table].rules.values() if table in found else []
    return [decompile_rule(rule, names) for rule in rules]


class Raw(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("agent")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


def call(agent, method, path, body=None, **headers):
    connection = Raw(agent.socket)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, f"/v1/{path}", body, headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer, response.headers


def test_load_list_and_show(agent, file):
    assert agent.json("table", "list") == []
    loaded = agent.json("table", "load", "3", str(file))
    assert loaded == {"table": 3, "miss": "drop", "count": 3, "waiting": 1, "revision": 1}
    assert agent.json("table", "list") == [loaded]
    assert len(agent.json("table", "list", "--all")) == 16
    assert len(held(agent)) == 2
    rows = agent.json("table", "show", "3")
    assert [(row["id"], row["priority"], row["waiting"]) for row in rows] == [
        (2, 9, False),
        (3, 9, True),
        (1, 5, False),
    ]
    assert rows[2] == {
        "id": 1, "priority": 5, "match": {"ip_proto": "tcp", "tcp_dst": 25}, "actions": ["drop"],
        "cookie": 7, "origin": "operator", "waiting": False,
    }  # fmt: skip
    out = agent.ctl("table", "show", "3")[1]
    assert "ip_proto=tcp, tcp_dst=25" in out


def test_what_is_shown_can_be_loaded(agent, file):
    agent.json("table", "load", "3", str(file))
    status, answer, headers = call(agent, "GET", "tables/3")
    assert (status, headers["ETag"]) == (200, '"1"')
    kept = ("priority", "match", "actions", "cookie")
    rules = [{name: rule[name] for name in kept} for rule in answer["rules"]]
    text = yaml.safe_dump({"miss": answer["miss"], "rules": rules})
    file.write_text(text)
    before = agent.json("table", "show", "3")
    agent.json("table", "load", "3", str(file))
    assert agent.json("table", "show", "3") == before


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["--priority", "9"], [2, 3]),
        (["--cookie", "0x7"], [1]),
        (["--waiting"], [3]),
        (["--port", AWAY.upper()], [3]),
        (["--instance", AWAY], []),
        (["--origin", "controller"], []),
        (["--origin", "operator", "--priority", "5"], [1]),
    ],
)
def test_filters(agent, file, words, ids):
    agent.json("table", "load", "3", str(file))
    assert [row["id"] for row in agent.json("table", "show", "3", *words)] == ids


def test_pages(agent, tmp_path):
    path = tmp_path / "many.json"
    rules = [
        {"priority": number % 7, "match": {"vlan_vid": number}, "actions": ["drop"]}
        for number in range(50)
    ]
    path.write_text(json.dumps({"rules": rules}))
    agent.json("table", "load", "0", str(path))
    seen, cursor = [], []
    while True:
        status, out, err = agent.ctl("table", "show", "0", "--limit", "8", *cursor, "-f", "json")
        assert status == 0
        rows = json.loads(out)
        seen += [(row["priority"], row["id"]) for row in rows]
        if not err:
            break
        assert len(rows) == 8
        cursor = ["--cursor", err.split()[-1]]
    assert len(seen) == 50
    assert seen == sorted(seen, key=lambda item: (-item[0], item[1]))


def test_a_listing_of_several_answers(agent, tmp_path, monkeypatch):
    monkeypatch.setattr("vnet_agent.cli.table._PAGE", 2)
    for number in range(5):
        agent.json("table", "add", "0", "--match", f"vlan_vid={number}", "--action", "drop")
    assert [row["id"] for row in agent.json("table", "show", "0")] == [1, 2, 3, 4, 5]


def test_add_and_delete(agent):
    port = agent.bench.driver.ports()[0].port
    added = agent.json(
        "table", "add", "3", "--priority", "200", "--cookie", "0x10",
        "--match", f"ip_proto=tcp,tcp_flags=+syn-ack,in_port={port}",
        "--match", "ip_dst=10.0.0.0/8,metadata=0x1/0x3",
        "--action", "set:ip_dst=10.0.0.9", "--action", f"mirror={port}",
        "--action", "push_vlan=5", "--action", "controller=128",
    )  # fmt: skip
    assert added["id"] == 1
    assert added["actions"] == [
        {"set": {"ip_dst": "10.0.0.9"}},
        {"mirror": port},
        {"push_vlan": {"vid": 5, "pcp": 0}},
        {"controller": {"max_len": 128}},
    ]
    (rule,) = held(agent)
    assert (rule.priority, rule.cookie, rule.match.in_port) == (200, 16, port)
    agent.json("table", "add", "3", "--action", "output=uplink")
    gone = agent.json("table", "delete", "3", "1")
    assert (gone["id"], gone["cookie"]) == (1, 16)
    assert [item.priority for item in held(agent)] == [32768]
    cleared = agent.json("table", "delete", "3", "--all")
    assert (cleared["count"], cleared["revision"]) == (0, 4)
    assert held(agent) == []


def test_a_revision_guards(agent, file):
    agent.json("table", "load", "3", str(file))
    add = ("table", "add", "3", "--action", "drop")
    assert "has changed meanwhile" in agent.refused(*add, "--revision", "7")
    agent.json(*add, "--revision", "1")
    for words in (
        ("load", "3", str(file)),
        ("delete", "3", "--all"),
        ("delete", "3", "1"),
    ):
        assert "has changed meanwhile" in agent.refused("table", *words, "--revision", "1")
    assert len(agent.json("table", "show", "3")) == 4
    assert call(agent, "DELETE", "tables/3", If_Match='"x"')[0] == 412
    assert call(agent, "DELETE", "tables/3", If_Match='"2"')[0] == 200


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("show", "16"), "There is no table '16'"),
        (("show", "x"), "There is no table 'x'"),
        (("show", "3", "--cursor", "x"), "'x' is no cursor"),
        (("show", "3", "--cookie", "x"), "cookie must be a number of 32 bits"),
        (("show", "3", "--port", "tap99"), "No port tap99"),
        (("show", "3", "--limit", "0"), "limit must be a number from 1"),
        (("load", "3", "/nowhere"), "/nowhere cannot be read: No such file"),
        (("delete", "3", "1"), "Table 3 has no rule 1; `vnetctl table show 3`"),
        (("delete", "3", "x"), "'x' is no rule's id"),
        (("add", "3", "--action", "jump"), "$.actions[0]: 'jump' is no action"),
        (("add", "3", "--action", "goto=3"), "$.actions[0].goto: '3' is no table behind"),
        (("add", "3", "--action", "drop", "--match", "tcp_dst=3"), "tcp_dst needs ip_proto"),
        (("add", "3", "--action", "drop", "--match", "x"), "'x' is not FIELD=VALUE"),
        (("add", "3", "--action", "drop", "--match", "a=1,a=2"), "a is given twice"),
        (("add", "3", "--action", "drop", "--priority", "x"), "$.priority: 'x' is no number"),
    ],
)
def test_what_is_wrong_is_one_line(agent, words, says):
    assert says in agent.refused("table", *words)


def test_a_bad_document_changes_nothing(agent, file):
    agent.json("table", "load", "3", str(file))
    before = held(agent)
    file.write_text(GOOD % AWAY + "- {actions: [jump]}\n")
    err = agent.refused("table", "load", "3", str(file))
    assert f"Handlers refused, nothing has changed: {file}:6: 'jump'" in err
    file.write_bytes(b"rules:\n- \xff")
    assert f"{file}:2: this is no UTF-8" in agent.refused("table", "load", "3", str(file))
    assert held(agent) == before


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "tables/3/rules", b"[]", 400),
        ("POST", "tables/3/rules", b'{"actions":["drop"],"table":4}', 422),
        ("GET", "tables/3?colour=red", None, 400),
        ("GET", "tables/3?waiting=2", None, 400),
        ("GET", "tables/3?origin=me", None, 400),
        ("PUT", "tables/3?name=%00", b"rules: []", 400),
        ("DELETE", "tables/3?x=1", None, 400),
    ],
)
def test_requests_that_mean_nothing(agent, method, path, body, status):
    answered, problem, headers = call(agent, method, path, body)
    assert (answered, problem["status"]) == (status, status)
    assert headers["Content-Type"].startswith("application/problem+json")


def test_a_driver_without_tables_says_so(agent, monkeypatch):
    for name in ("replace_table", "insert_rule"):
        monkeypatch.setattr(type(agent.bench.driver), name, getattr(Driver, name))
    add = ("table", "add", "0", "--action", "drop")
    assert "the datapath driver has no tables" in agent.refused(*add).lower()
    assert agent.json("table", "list") == []
    assert call(agent, "PUT", "tables/0", b"{miss: drop, rules: []}")[0] == 501


def test_a_port_that_goes_takes_its_rules_out(agent):
    entry = agent.bench.driver.ports()[0]
    agent.json("table", "add", "3", "--match", f"in_port={entry.port}", "--action", "drop")
    assert len(held(agent)) == 1
    agent.bench.driver.remove_port(entry.port, generation=entry.generation)
    (moved,) = agent.inventory.callbacks
    agent.loop.call_soon_threadsafe(moved)
    for _ in range(200):
        if agent.json("table", "list")[0]["waiting"]:
            break
    assert held(agent) == []
