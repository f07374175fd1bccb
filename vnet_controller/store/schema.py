"""The tables. `vnet_controller/alembic` makes them; a test compares the two.

Times are microseconds since 1970 (UTC), in columns that end in `_us`. Bodies are JSON text.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

from vnet_controller.store.sqlite import POSITION

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: `events`: position of the newest event. `policy`: revision of all groups together. Taking the
#: next value locks the row until the commit, so the order of values is the order of commits.
COUNTERS = Table(
    "counters",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

EVENTS = Table(
    "events",
    METADATA,
    Column("position", POSITION, primary_key=True, autoincrement=False),
    Column("id", String(512), nullable=False, unique=True),
    Column("type", String(64), nullable=False),
    Column("source", String(300), nullable=False),
    Column("subject", String(256)),
    Column("received_us", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index(None, "subject", "position"),
    Index(None, "type", "position"),
    Index(None, "source", "position"),
    Index(None, "received_us"),
)

#: Where each instance runs and how it is: what the events and the port snapshots add up to.
INSTANCES = Table(
    "instances",
    METADATA,
    Column("uuid", String(256), primary_key=True),
    Column("name", String(256), nullable=False),
    Column("host", String(256), nullable=False),
    Column("state", String(16), nullable=False),
    Column("cause", String(16), nullable=False),
    Column("since_us", BigInteger, nullable=False),
    Column("ordered_us", BigInteger, nullable=False),
    Column("generation", BigInteger),
    Index(None, "host"),
)

#: The newest event of an instance that each host told: whatever is not newer is old news.
MARKS = Table(
    "instance_marks",
    METADATA,
    Column("instance", String(256), primary_key=True),
    Column("host", String(256), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("sequence", String(64), nullable=False),
)

HOSTS = Table(
    "hosts",
    METADATA,
    Column("name", String(256), primary_key=True),
    Column("version", String(128), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("migration_url", String(512), nullable=False),
    Column("started", String(64), nullable=False),
    Column("datapath", Text, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
)

PORTS = Table(
    "ports",
    METADATA,
    Column("host", String(256), primary_key=True),
    Column("uuid", String(256), primary_key=True),
    Column("instance", String(256), nullable=False),
    Column("role", String(16), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index(None, "instance"),
)

#: One row for each side of a migration; the two are merged when they are read.
MIGRATIONS = Table(
    "migrations",
    METADATA,
    Column("id", String(256), primary_key=True),
    Column("side", String(16), primary_key=True),
    Column("instance", String(256), nullable=False),
    Column("steps", Integer, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index(None, "instance"),
    Index(None, "started_us"),
)

GROUPS = Table(
    "groups",
    METADATA,
    Column("name", String(128), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)
