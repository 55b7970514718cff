"""Make the table of ingestion's runs; a line of its ledger names its run."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table, add the column."""
    op.create_table(
        "ingest_run",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("interval", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("symbols", sa.Integer, nullable=False),
        sa.Column("began_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="ingest_run_pkey"),
    )
    # The release before adds lines that belong to no run.
    op.add_column("ingest_job", sa.Column("run_id", sa.Integer))


def downgrade() -> None:
    """Drop both."""
    op.drop_column("ingest_job", "run_id")
    op.drop_table("ingest_run")
