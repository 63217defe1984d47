"""
The tables of a file.

A run has a row, and so has each of its entries, so that the oldest can be removed. Ids and owners
are kept as bytes, because they may be any text. Monotonic times count only together with ``boot``,
the boot of the machine in which they were taken.
"""

from __future__ import annotations

#: Marks a file as one of these: "skru".
APPLICATION_ID = 0x736B7275

#: The version of the tables. This release cannot use a later one.
VERSION = 1

TABLES = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    epoch TEXT NOT NULL,
    owner BLOB,
    data BLOB NOT NULL,
    keep REAL NOT NULL,
    unwatched REAL,
    started_at REAL NOT NULL,
    first INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    last INTEGER NOT NULL,
    head INTEGER,
    outcome BLOB,
    cancel BLOB,
    boot TEXT NOT NULL,
    lease REAL NOT NULL,
    seen_at REAL NOT NULL,
    seen_on REAL NOT NULL,
    doubted_at REAL,
    watched_at REAL NOT NULL,
    followed_until REAL NOT NULL,
    ended INTEGER,
    expires_at REAL,
    size INTEGER NOT NULL,
    changes INTEGER NOT NULL
);
CREATE INDEX runs_ended ON runs (ended) WHERE ended IS NOT NULL;
CREATE INDEX runs_expire ON runs (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE entries (
    run INTEGER NOT NULL,
    position INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run, position)
) WITHOUT ROWID;
CREATE TABLE early (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    owner BLOB,
    reason BLOB NOT NULL,
    boot TEXT NOT NULL,
    until REAL NOT NULL
);
CREATE INDEX early_id ON early (id);
CREATE TABLE totals (bytes INTEGER NOT NULL, ended_bytes INTEGER NOT NULL, ends INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0, 0);
"""
