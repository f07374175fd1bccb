"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "counters",
    "events",
    "groups",
    "hosts",
    "instance_marks",
    "instances",
    "migrations",
    "ports",
)


def upgrade() -> None:
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(counters, [{"name": "events", "value": 0}, {"name": "policy", "value": 0}])
    create_events()
    create_instances()
    create_hosts()
    op.create_table(
        "groups",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("changed_us", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )


def create_events() -> None:
    op.create_table(
        "events",
        sa.Column(
            "position",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("id", sa.String(512), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("source", sa.String(300), nullable=False),
        sa.Column("subject", sa.String(256)),
        sa.Column("received_us", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.UniqueConstraint("id", name="uq_events_id"),
    )
    for column in ("subject", "type", "source"):
        op.create_index(f"ix_events_{column}_events_position", "events", [column, "position"])
    op.create_index("ix_events_received_us", "events", ["received_us"])


def create_instances() -> None:
    op.create_table(
        "instances",
        sa.Column("uuid", sa.String(256), primary_key=True),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("host", sa.String(256), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("cause", sa.String(16), nullable=False),
        sa.Column("since_us", sa.BigInteger, nullable=False),
        sa.Column("ordered_us", sa.BigInteger, nullable=False),
        sa.Column("generation", sa.BigInteger),
    )
    op.create_index("ix_instances_host", "instances", ["host"])
    op.create_table(
        "instance_marks",
        sa.Column("instance", sa.String(256), primary_key=True),
        sa.Column("host", sa.String(256), primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.String(64), nullable=False),
    )
    op.create_table(
        "migrations",
        sa.Column("id", sa.String(256), primary_key=True),
        sa.Column("side", sa.String(16), primary_key=True),
        sa.Column("instance", sa.String(256), nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("started_us", sa.BigInteger, nullable=False),
        sa.Column("received_us", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("ix_migrations_instance", "migrations", ["instance"])
    op.create_index("ix_migrations_started_us", "migrations", ["started_us"])


def create_hosts() -> None:
    op.create_table(
        "hosts",
        sa.Column("name", sa.String(256), primary_key=True),
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("migration_url", sa.String(512), nullable=False),
        sa.Column("started", sa.String(64), nullable=False),
        sa.Column("datapath", sa.Text, nullable=False),
        sa.Column("seen_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ports",
        sa.Column("host", sa.String(256), primary_key=True),
        sa.Column("uuid", sa.String(256), primary_key=True),
        sa.Column("instance", sa.String(256), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("ix_ports_instance", "ports", ["instance"])


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
