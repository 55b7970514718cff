"""Make tables for chunks of codec 2, rollups, features, predictions, sessions.

`block` stays, so that the release before goes on with what it knows; its bars are
copied. On PostgreSQL the view `bars` shows bars to people.
"""

import struct
import zlib

import numpy as np
import sqlalchemy as sa
from alembic import op

from mltrading_marketdata.codec import CODEC, COLUMNS, DTYPES, encode
from mltrading_marketdata.interval import period
from mltrading_marketdata.rollups import TIERS, rolled

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables, copy the bars, make the view."""
    op.create_table(
        "chunk",
        sa.Column("series_id", sa.Integer, nullable=False),
        sa.Column("interval", sa.Text, nullable=False),
        sa.Column("period", sa.Integer, nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("codec", sa.SmallInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("series_id", "interval", "period", name="chunk_pkey"),
        sa.ForeignKeyConstraint(
            ["series_id"], ["series.id"], name="chunk_series_id_fkey"
        ),
    )
    op.create_table(
        "feature_set",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("columns", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="feature_set_pkey"),
        sa.UniqueConstraint("name", "version", name="feature_set_name_version_key"),
    )
    op.create_table(
        "feature_series",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("set_id", sa.Integer, nullable=False),
        sa.Column("symbol_id", sa.Integer, nullable=False),
        sa.Column("interval", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="feature_series_pkey"),
        sa.ForeignKeyConstraint(
            ["set_id"], ["feature_set.id"], name="feature_series_set_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["symbol_id"], ["symbol.id"], name="feature_series_symbol_id_fkey"
        ),
        sa.UniqueConstraint(
            *("set_id", "symbol_id", "interval"),
            name="feature_series_set_id_symbol_id_interval_key",
        ),
    )
    op.create_table(
        "feature_chunk",
        sa.Column("series_id", sa.Integer, nullable=False),
        sa.Column("period", sa.Integer, nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("codec", sa.SmallInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("series_id", "period", name="feature_chunk_pkey"),
        sa.ForeignKeyConstraint(
            ["series_id"], ["feature_series.id"], name="feature_chunk_series_id_fkey"
        ),
    )
    op.create_table(
        "prediction",
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("symbol_id", sa.Integer, nullable=False),
        sa.Column("interval", sa.Text, nullable=False),
        sa.Column("ts", sa.BigInteger, nullable=False),
        sa.Column("horizon", sa.Integer, nullable=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.Column("lower", sa.Float(53)),
        sa.Column("upper", sa.Float(53)),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint(
            *("model", "symbol_id", "interval", "ts", "horizon"),
            name="prediction_pkey",
        ),
        sa.ForeignKeyConstraint(
            ["symbol_id"], ["symbol.id"], name="prediction_symbol_id_fkey"
        ),
    )
    op.create_table(
        "session",
        sa.Column("calendar", sa.Text, nullable=False),
        sa.Column("ts", sa.BigInteger, nullable=False),
        sa.Column("open", sa.BigInteger, nullable=False),
        sa.Column("close", sa.BigInteger, nullable=False),
        sa.Column("break_start", sa.BigInteger),
        sa.Column("break_end", sa.BigInteger),
        sa.PrimaryKeyConstraint("calendar", "ts", name="session_pkey"),
    )
    if op.get_context().dialect.name == "postgresql":
        # A year of daily bars is 3.7 kB: it stays in its row, read with one page.
        op.execute("ALTER TABLE chunk ALTER COLUMN payload SET STORAGE EXTERNAL")
        op.execute("ALTER TABLE chunk SET (toast_tuple_target = 8160)")
        # Not STRICT: so it is inlined, and of the CASE is left what its width says.
        op.execute("""
            CREATE FUNCTION chunk_whole(payload bytea, at int, width int)
            RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
              SELECT CASE width
                WHEN 0 THEN 0
                WHEN 1 THEN get_byte(payload, at)
                WHEN 2 THEN get_byte(payload, at) + (get_byte(payload, at + 1) << 8)
                WHEN 4 THEN get_byte(payload, at) + (get_byte(payload, at + 1) << 8)
                  + (get_byte(payload, at + 2) << 16)
                  + (get_byte(payload, at + 3)::bigint << 24)
                ELSE get_byte(payload, at) + (get_byte(payload, at + 1) << 8)
                  + (get_byte(payload, at + 2) << 16)
                  + (get_byte(payload, at + 3)::bigint << 24)
                  + (get_byte(payload, at + 4)::bigint << 32)
                  + (get_byte(payload, at + 5)::bigint << 40)
                  + (get_byte(payload, at + 6)::bigint << 48)
                  + (get_byte(payload, at + 7)::bigint << 56)
              END
            $$
            """)
        op.execute("""
            CREATE FUNCTION chunk_float(bits bigint, fraction int, bias int)
            RETURNS float8 LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
              SELECT CASE
                WHEN (bits >> fraction) & (2 * bias + 1) = 2 * bias + 1 THEN
                  CASE WHEN bits & ((1::bigint << fraction) - 1) <> 0 THEN 'NaN'::float8
                    WHEN (bits >> fraction) & (2 * bias + 2) <> 0 THEN '-Infinity'
                    ELSE 'Infinity' END
                ELSE
                  CASE WHEN (bits >> fraction) & (2 * bias + 2) <> 0 THEN -1 ELSE 1 END
                  * CASE WHEN (bits >> fraction) & (2 * bias + 1) = 0 THEN 0 ELSE
                    power(2::float8, ((bits >> fraction) & (2 * bias + 1)) - bias) END
                  * (1 + (bits & ((1::bigint << fraction) - 1))
                    / power(2::float8, fraction))
              END
            $$
            """)
        # A query for each width, which it then need not be asked at every value; and
        # the payload as a value of its own, or every byte would fetch it anew.
        op.execute("""
            CREATE FUNCTION chunk_column(payload bytea, number int)
            RETURNS float8[] LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
            DECLARE
              whole bytea := payload || ''::bytea;
              columns int := chunk_whole(whole, 0, 4);
              rows int := chunk_whole(whole, 4, 4);
              head int := 12 + 16 * number;
              start int := 12 + 16 * columns;
              kind int := get_byte(whole, head);
              width int := get_byte(whole, head + 1);
              scale float8 := power(10::float8, get_byte(whole, head + 2));
              unit bigint := (ARRAY[1, 100, 1000000, 60000000, 300000000, 3600000000,
                86400000000])[get_byte(whole, head + 3) + 1];
              base bigint := chunk_whole(whole, head + 8, 8);
              past int;
            BEGIN
              FOR before IN 0 .. number - 1 LOOP
                start := start + rows * get_byte(whole, 12 + 16 * before + 1);
              END LOOP;
              past := start + rows * width - 1;
              IF kind = 1 THEN
                RETURN ARRAY(SELECT chunk_float(chunk_whole(whole, i, 4), 23, 127)
                  FROM generate_series(start, past, 4) AS i);
              ELSIF kind = 2 THEN
                RETURN ARRAY(SELECT chunk_float(chunk_whole(whole, i, 8), 52, 1023)
                  FROM generate_series(start, past, 8) AS i);
              ELSIF width = 0 THEN
                RETURN array_fill((base * unit) / scale, ARRAY[rows]);
              ELSIF width = 1 THEN
                RETURN ARRAY(SELECT ((base + chunk_whole(whole, i, 1)) * unit) / scale
                  FROM generate_series(start, past, 1) AS i);
              ELSIF width = 2 THEN
                RETURN ARRAY(SELECT ((base + chunk_whole(whole, i, 2)) * unit) / scale
                  FROM generate_series(start, past, 2) AS i);
              ELSIF width = 4 THEN
                RETURN ARRAY(SELECT ((base + chunk_whole(whole, i, 4)) * unit) / scale
                  FROM generate_series(start, past, 4) AS i);
              END IF;
              RETURN ARRAY(SELECT ((base + chunk_whole(whole, i, 8)) * unit) / scale
                FROM generate_series(start, past, 8) AS i);
            END
            $$
            """)
        op.execute("""
            CREATE VIEW bars AS
            SELECT symbol.ticker AS symbol, series.interval,
              'epoch'::timestamptz + interval '1 microsecond' * bar.ts AS ts,
              bar.open, bar.high, bar.low, bar.close, bar.volume::bigint AS volume,
              series.source
            FROM series
            JOIN symbol ON symbol.id = series.symbol_id
            JOIN chunk ON chunk.series_id = series.id
              AND chunk.interval = series.interval
            CROSS JOIN LATERAL unnest(
              chunk_column(chunk.payload, 0), chunk_column(chunk.payload, 1),
              chunk_column(chunk.payload, 2), chunk_column(chunk.payload, 3),
              chunk_column(chunk.payload, 4), chunk_column(chunk.payload, 5)
            ) AS bar (ts, open, high, low, close, volume)
            """)
    if not op.get_context().as_sql:
        _copy_blocks(op.get_bind())


def _copy_blocks(connection: sa.Connection) -> None:
    """Copy every block into chunks, with the rollups that intraday bars have."""
    series = connection.execute(sa.text("SELECT id, interval FROM series")).all()
    for series_id, interval in series:
        blocks = connection.execute(
            sa.text("SELECT codec, payload FROM block WHERE series_id = :id"),
            {"id": series_id},
        ).all()
        parts = [_of_codec_1(payload) for codec, payload in blocks if codec == 1]
        if not parts:
            continue
        order = np.argsort(np.concatenate([part["ts"] for part in parts]))
        whole = {
            name: np.concatenate([part[name] for part in parts])[order]
            for name in COLUMNS
        }
        for tier in (interval, *TIERS[interval]):
            bars = whole if tier == interval else rolled(whole, tier)
            periods = period(bars["ts"], tier)
            rows = []
            for number in np.unique(periods).tolist():
                part = {name: bars[name][periods == number] for name in COLUMNS}
                row = {"series_id": series_id, "interval": tier, "period": number}
                row |= {"n": len(part["ts"]), "codec": CODEC, "payload": encode(part)}
                rows.append(row)
            connection.execute(
                sa.text(
                    "INSERT INTO chunk (series_id, interval, period, n, codec, payload)"
                    " VALUES (:series_id, :interval, :period, :n, :codec, :payload)"
                ),
                rows,
            )


def _of_codec_1(payload: bytes) -> dict[str, np.ndarray]:
    """Read a block of the first release: six lengths, then a zlib stream per column."""
    lengths = struct.unpack_from("<6I", payload)
    start, found = 24, {}
    for name, length in zip(COLUMNS, lengths, strict=True):
        raw = zlib.decompress(payload[start : start + length])
        found[name] = np.frombuffer(raw, DTYPES[name])
        start += length
    return found


def downgrade() -> None:
    """Drop what `upgrade` made; bars that were written since are lost."""
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP VIEW bars")
        op.execute("DROP FUNCTION chunk_column(bytea, int)")
        op.execute("DROP FUNCTION chunk_float(bigint, int, int)")
        op.execute("DROP FUNCTION chunk_whole(bytea, int, int)")
    for table in (
        *("session", "prediction", "feature_chunk", "feature_series", "feature_set"),
        "chunk",
    ):
        op.drop_table(table)
