"""The ledger's tables, and the one file that knows SQLAlchemy. Values are numbers, text and JSON; never pickles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Insert,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from leaktight.errors import UsageError

VERSION = 1
"""The version of these tables. A ledger of a newer one is not touched."""
__all__ = ["CLAIMS", "META", "RESULTS", "RUNS", "Connection", "Opened", "delete", "func", "insert", "select", "update"]

_TABLES = MetaData()
META = Table("leaktight_meta", _TABLES, Column("version", Integer, primary_key=True))
RUNS = Table(
    "leaktight_runs",
    _TABLES,
    Column("id", Integer, primary_key=True),
    Column("suite", Text, nullable=False),
    Column("runner", String(200), nullable=False),
    Column("version", String(40), nullable=False),
    Column("began", Float, nullable=False),
)
RESULTS = Table(
    "leaktight_results",
    _TABLES,
    Column("id", Integer, primary_key=True),
    Column("run", Integer, nullable=False),
    Column("key", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("network", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("at", Float, nullable=False),
    Column("version", String(40), nullable=False),
    Column("answer", Text, nullable=False),
    Index("leaktight_results_key", "key", "id"),
)
CLAIMS = Table(
    "leaktight_claims",
    _TABLES,
    Column("key", String(64), primary_key=True),
    Column("runner", String(200), nullable=False),
    Column("expires", Float, nullable=False),
)


class Opened:
    """A database with the ledger's tables in it."""

    def __init__(self, url: str, *, reading: bool = False) -> None:
        """reading: nothing is made or written; one that cannot be written to will do.

        Raises UsageError: it is no URL; the database cannot be reached, written to or read by this version; or there is
        none, and it is only to be read.
        """
        self.shown = _shown(url)
        with self.told():
            self.engine = _engine(url, reading)
            self.sqlite = self.engine.dialect.name == "sqlite"
            self._prepare(reading)

    def _prepare(self, reading: bool) -> None:
        with self.engine.begin() as connection:
            if inspect(connection).has_table(META.name):
                version = connection.execute(select(func.max(META.c.version))).scalar()
            elif reading:
                raise UsageError(_missing(self.shown))
            else:
                if not self.sqlite:  # two runners may make the tables at the same moment
                    connection.execute(select(func.pg_advisory_xact_lock(20_080_522)))
                _TABLES.create_all(connection)
                version = connection.execute(select(func.max(META.c.version))).scalar()
                if version is None:
                    connection.execute(insert(META).values(version=VERSION))
                    version = VERSION
        if version is None or version > VERSION:
            raise UsageError(
                f"--ledger: {self.shown} was written by a newer leaktight (its version is {version}, and this one knows"
                f" {VERSION}); use that leaktight, or give another ledger"
            )

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that is whole or not there. Raises UsageError: the database refuses it."""
        with self.told(), self.engine.begin() as connection:
            yield connection

    def insert_new(self, table: Table) -> Insert:
        """An insertion that leaves rows alone that are there already."""
        if self.sqlite:
            return sqlite.insert(table).on_conflict_do_nothing()
        return postgresql.insert(table).on_conflict_do_nothing()

    def now(self, connection: Connection) -> float:
        """The time in seconds, by the one clock that all runners on this ledger share."""
        if self.sqlite:
            import time

            return time.time()
        return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())

    @contextmanager
    def told(self) -> Iterator[None]:
        """Raises UsageError for whatever the database raises: what happened, and what to do."""
        try:
            yield
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise UsageError(f"--ledger: {self.shown}: {_unusable(error)}") from None
        except SQLAlchemyError as error:
            reason = str(error.orig) if isinstance(error, DBAPIError) else str(error)
            first = next(iter(reason.strip().splitlines()), type(error).__name__)
            raise UsageError(f"--ledger: {self.shown}: {first}; {_what_to_do(first)}") from None

    def close(self) -> None:
        """Gives the connections back."""
        self.engine.dispose()


def _shown(url: str) -> str:
    """The URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "the ledger"


def _missing(shown: str) -> str:
    return f"--ledger: {shown}: there is no ledger; 'leaktight run' makes one, and --ledger names another"


def _engine(url: str, reading: bool) -> Engine:
    found = make_url(url)
    if found.drivername in ("postgresql", "postgres"):
        found = found.set(drivername="postgresql+psycopg")
    if found.get_backend_name() == "sqlite":
        if reading:
            return create_engine(_read_only(found), connect_args={"timeout": 60.0})
        _folder(found.database)
        engine = create_engine(found, connect_args={"timeout": 60.0})
        event.listen(engine, "connect", _sqlite_ready)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return engine
    if found.get_backend_name() != "postgresql":
        raise ArgumentError("no such database")
    return create_engine(found, connect_args={"connect_timeout": 10}, pool_pre_ping=True)


def _read_only(url: URL) -> URL:
    """The same SQLite file, opened so that nothing beside it has to be written either.

    Raises UsageError: there is none.
    """
    database = url.database or ""
    if database.startswith("file:"):  # how it is opened has been said
        return url
    place = Path(database).absolute()
    if not database or not place.exists():
        raise UsageError(_missing(_shown(str(url))))
    query = {"mode": "ro", "uri": "true"}
    if not os.access(place.parent, os.W_OK) and not Path(f"{place}-wal").exists():
        query["immutable"] = "1"  # else SQLite wants to write files of its own beside it
    return url.set(database=f"file:{quote(str(place))}", query=query)


def _folder(database: str | None) -> None:
    """Makes the folder of the default ledger, which no version control is to see."""
    place = Path(database or "")
    if place.parent.name == ".leaktight" and not place.parent.exists():
        try:
            place.parent.mkdir()
            (place.parent / ".gitignore").write_text("*\n")
        except OSError as error:
            raise UsageError(
                f"--ledger: {place.parent} cannot be made ({error.strerror}); give another place"
            ) from None


def _sqlite_ready(connection: Any, _: Any) -> None:
    """Transactions are begun by us. What is committed survives the end of this process; a power cut can cost the last
    commits, whose jobs are then proved again."""
    connection.isolation_level = None
    for setting in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=60000"):
        connection.execute(f"PRAGMA {setting}").close()


def _unusable(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"the driver {error.name} is not installed; pip install 'leaktight[postgres]'"
    return "this is no URL of a ledger; write sqlite:///FILE or postgresql://USER@HOST/DATABASE"


def _what_to_do(reason: str) -> str:
    if "full" in reason or "No space" in reason:
        return "make room; what was recorded before is there, and --resume goes on from it"
    if "readonly" in reason or "read-only" in reason:
        return "give a ledger that can be written to"
    if "not a database" in reason or "malformed" in reason:
        return "give another file"
    return "see that it can be reached and written to, or give another --ledger"
