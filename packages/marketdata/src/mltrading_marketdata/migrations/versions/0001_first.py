"""Make the tables for symbols, series, blocks, actions, jobs and refused rows."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "symbol",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("ticker", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("exchange", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("sector", sa.Text, nullable=False),
        sa.Column("industry", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="symbol_pkey"),
        sa.UniqueConstraint("ticker", name="symbol_ticker_key"),
    )
    op.create_table(
        "series",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("symbol_id", sa.Integer, nullable=False),
        sa.Column("interval", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("first_ts", sa.BigInteger),
        sa.Column("last_ts", sa.BigInteger),
        sa.Column("open", sa.Float(53)),
        sa.Column("high", sa.Float(53)),
        sa.Column("low", sa.Float(53)),
        sa.Column("close", sa.Float(53)),
        sa.Column("volume", sa.BigInteger),
        sa.Column("previous_ts", sa.BigInteger),
        sa.Column("previous_close", sa.Float(53)),
        sa.PrimaryKeyConstraint("id", name="series_pkey"),
        sa.ForeignKeyConstraint(
            ["symbol_id"], ["symbol.id"], name="series_symbol_id_fkey"
        ),
        sa.UniqueConstraint(
            "symbol_id", "interval", name="series_symbol_id_interval_key"
        ),
    )
    op.create_table(
        "block",
        sa.Column("series_id", sa.Integer, nullable=False),
        sa.Column("period", sa.Integer, nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("codec", sa.SmallInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("series_id", "period", name="block_pkey"),
        sa.ForeignKeyConstraint(
            ["series_id"], ["series.id"], name="block_series_id_fkey"
        ),
    )
    op.create_table(
        "corporate_action",
        sa.Column("symbol_id", sa.Integer, nullable=False),
        sa.Column("ts", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint(
            "symbol_id", "ts", "kind", name="corporate_action_pkey"
        ),
        sa.ForeignKeyConstraint(
            ["symbol_id"], ["symbol.id"], name="corporate_action_symbol_id_fkey"
        ),
    )
    op.create_table(
        "ingest_job",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("ticker", sa.Text, nullable=False),
        sa.Column("interval", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("inserted", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.Column("unchanged", sa.BigInteger, nullable=False),
        sa.Column("rejected", sa.BigInteger, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="ingest_job_pkey"),
    )
    op.create_table(
        "reject",
        sa.Column("series_id", sa.Integer, nullable=False),
        sa.Column("ts", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("row", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("series_id", "ts", "reason", name="reject_pkey"),
        sa.ForeignKeyConstraint(
            ["series_id"], ["series.id"], name="reject_series_id_fkey"
        ),
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("key", name="meta_pkey"),
    )
    if op.get_context().dialect.name == "postgresql":
        # Payloads are compressed already; a second try would only cost time.
        op.execute("ALTER TABLE block ALTER COLUMN payload SET STORAGE EXTERNAL")


def downgrade() -> None:
    """Drop the tables."""
    for table in (
        "meta",
        "reject",
        "ingest_job",
        "corporate_action",
        "block",
        "series",
        "symbol",
    ):
        op.drop_table(table)
