"""Read by every process of Airflow that opens its database, from the home's ``config/``, where
``tools/airflow_home.py`` puts a copy.

Airflow makes a backfill's runs within savepoints. Python's SQLite driver begins no transaction
before a savepoint, so that SQLite begins one that reads; where another process has written by the
time of its first own row, SQLite refuses that row at once ("database is locked"), whatever the
time-out. A transaction that begins as a writer waits for its turn, and is written whole or not at
all.
"""

from __future__ import annotations

from sqlalchemy import Connection, Engine, event

__all__: list[str] = []  # Airflow takes every name that is here for one of its settings


@event.listens_for(Engine, "savepoint")
def _begin_as_a_writer(connection: Connection, _: str | None) -> None:
    if connection.dialect.name != "sqlite":
        return
    driver = connection.connection.driver_connection
    if driver is not None and not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
