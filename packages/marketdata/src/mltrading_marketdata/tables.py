"""The tables. The migrations make them; a test holds both against each other."""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

# All times are BigInteger: microseconds since 1970-01-01 UTC.

symbol = Table(
    "symbol",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("ticker", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("exchange", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("sector", Text, nullable=False),
    Column("industry", Text, nullable=False),
)

series = Table(
    "series",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("symbol_id", Integer, ForeignKey("symbol.id"), nullable=False),
    Column("interval", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("first_ts", BigInteger),
    Column("last_ts", BigInteger),
    Column("open", Float(53)),
    Column("high", Float(53)),
    Column("low", Float(53)),
    Column("close", Float(53)),
    Column("volume", BigInteger),
    Column("previous_ts", BigInteger),
    Column("previous_close", Float(53)),
    UniqueConstraint("symbol_id", "interval"),
)

# `interval` is that of the series, or a longer one: its bars rolled up at ingestion.
chunk = Table(
    "chunk",
    metadata,
    Column("series_id", Integer, ForeignKey("series.id"), primary_key=True),
    Column("interval", Text, primary_key=True),
    Column("period", Integer, primary_key=True, autoincrement=False),
    Column("n", Integer, nullable=False),
    Column("codec", SmallInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

# What the release before 0002 reads and writes; a contract migration will take it away.
block = Table(
    "block",
    metadata,
    Column("series_id", Integer, ForeignKey("series.id"), primary_key=True),
    Column("period", Integer, primary_key=True, autoincrement=False),
    Column("n", Integer, nullable=False),
    Column("codec", SmallInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

corporate_action = Table(
    "corporate_action",
    metadata,
    Column("symbol_id", Integer, ForeignKey("symbol.id"), primary_key=True),
    Column("ts", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),
    Column("value", Float(53), nullable=False),
)

ingest_job = Table(
    "ingest_job",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source", Text, nullable=False),
    Column("ticker", Text, nullable=False),
    Column("interval", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("inserted", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("unchanged", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("message", Text, nullable=False),
    # None: a line of the release that knew no runs.
    Column("run_id", Integer),
)

ingest_run = Table(
    "ingest_run",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source", Text, nullable=False),
    Column("interval", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("symbols", Integer, nullable=False),
    Column("began_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("state", Text, nullable=False),
    Column("message", Text, nullable=False),
)

reject = Table(
    "reject",
    metadata,
    Column("series_id", Integer, ForeignKey("series.id"), primary_key=True),
    Column("ts", BigInteger, primary_key=True, autoincrement=False),
    Column("reason", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("row", Text, nullable=False),
)

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

feature_set = Table(
    "feature_set",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    # The names of the columns, in the order of the chunks: a JSON list.
    Column("columns", Text, nullable=False),
    UniqueConstraint("name", "version"),
)

feature_series = Table(
    "feature_series",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("set_id", Integer, ForeignKey("feature_set.id"), nullable=False),
    Column("symbol_id", Integer, ForeignKey("symbol.id"), nullable=False),
    Column("interval", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    UniqueConstraint("set_id", "symbol_id", "interval"),
)

feature_chunk = Table(
    "feature_chunk",
    metadata,
    Column("series_id", Integer, ForeignKey("feature_series.id"), primary_key=True),
    Column("period", Integer, primary_key=True, autoincrement=False),
    Column("n", Integer, nullable=False),
    Column("codec", SmallInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

prediction = Table(
    "prediction",
    metadata,
    Column("model", Text, primary_key=True),
    Column("symbol_id", Integer, ForeignKey("symbol.id"), primary_key=True),
    Column("interval", Text, primary_key=True),
    # The bar that the prediction was made after, and how many bars ahead it looks.
    Column("ts", BigInteger, primary_key=True, autoincrement=False),
    Column("horizon", Integer, primary_key=True, autoincrement=False),
    Column("value", Float(53), nullable=False),
    Column("lower", Float(53)),
    Column("upper", Float(53)),
    Column("run_id", Text, nullable=False),
)

session = Table(
    "session",
    metadata,
    Column("calendar", Text, primary_key=True),
    # 00:00 UTC of the session date, as the ts of a daily bar.
    Column("ts", BigInteger, primary_key=True, autoincrement=False),
    Column("open", BigInteger, nullable=False),
    Column("close", BigInteger, nullable=False),
    # A pause at midday, where the exchange has one.
    Column("break_start", BigInteger),
    Column("break_end", BigInteger),
)
