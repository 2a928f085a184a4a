"""The tables of the embedded store's points, and the way to them from those of 0.1.0."""

from __future__ import annotations

import json
import sqlite3

from center.stores.telemetry import ENVIRONMENT

SCHEMA = """
CREATE TABLE IF NOT EXISTS bucket (n INTEGER PRIMARY KEY, id TEXT UNIQUE, name TEXT UNIQUE, retention_s INTEGER);
CREATE TABLE IF NOT EXISTS series (
    n INTEGER PRIMARY KEY, bucket INTEGER, measurement TEXT, tags TEXT, owner TEXT NOT NULL DEFAULT '',
    UNIQUE (bucket, measurement, tags));
CREATE TABLE IF NOT EXISTS device_series (
    bucket INTEGER, device TEXT, measurement TEXT, series INTEGER,
    PRIMARY KEY (bucket, device, measurement, series)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS series_field (
    series INTEGER, name TEXT, n INTEGER, type TEXT, PRIMARY KEY (series, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS device_type (
    bucket INTEGER, device TEXT, measurement TEXT, shard INTEGER, field TEXT, type TEXT,
    PRIMARY KEY (bucket, device, measurement, shard, field)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS points (series INTEGER, t INTEGER, PRIMARY KEY (series, t)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hours (
    series INTEGER, field INTEGER, hour INTEGER, count INTEGER, total NUMERIC, low NUMERIC, high NUMERIC,
    first, last, PRIMARY KEY (series, field, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dirty (series INTEGER, hour INTEGER, PRIMARY KEY (series, hour)) WITHOUT ROWID;
"""


def upgrade(connection: sqlite3.Connection) -> None:
    """To the tables above from those of 0.1.0, which numbered the fields of a measurement, for all devices together."""
    columns = {row[1] for row in connection.execute("PRAGMA table_info(series)")}
    if "owner" not in columns:
        connection.execute("ALTER TABLE series ADD COLUMN owner TEXT NOT NULL DEFAULT ''")
        rows = [(json.loads(tags), n) for n, tags in connection.execute("SELECT n, tags FROM series").fetchall()]
        owners = [(tags.get("clientId") or tags.get("device", ""), n) for tags, n in rows]
        connection.executemany("UPDATE series SET owner = ? WHERE n = ?", owners)
    connection.execute("CREATE INDEX IF NOT EXISTS series_owner ON series (bucket, owner)")
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'shard_type'").fetchone():
        connection.execute(
            "INSERT OR IGNORE INTO series_field SELECT s.n, f.name, f.n, f.type FROM series s "
            "JOIN field f USING (bucket, measurement)"
        )
        connection.execute(
            "INSERT OR IGNORE INTO device_type SELECT bucket, owner, measurement, shard, field, type FROM series "
            "JOIN shard_type USING (bucket, measurement) WHERE measurement <> ?",
            (ENVIRONMENT,),
        )
        connection.execute("DROP TABLE field")
        connection.execute("DROP TABLE shard_type")
