"""A night seen by one step: its run date, what it may read, and where it writes.

A step reads published tables and writes staged ones through this object alone; what it read is
recorded, so that every table's manifest names the way back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from jobs import engine, io, params, steps, tables
from jobs.errors import Fault
from jobs.io import Lake, Published

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from jobs.refresh.route import Refresh

log = logging.getLogger("nightjar")


@dataclass
class Night:
    """The context of one step in one run.

    ``as_of`` is the exclusive UTC instant; ``run_id`` names this attempt in every path it writes;
    ``source`` is what SOURCE named; ``seed`` seeds every random choice; ``redis_url`` is where
    releases are also served from, if anywhere; ``refresh`` is what a refresh goes on from, None in
    a night.
    """

    lake: Lake
    as_of: datetime
    run_id: str
    source: str
    step: str
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    seed: int = 20171201
    redis_url: str | None = None
    refresh: Refresh | None = None
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @cached_property
    def spark(self) -> SparkSession:
        """The run's engine, started where that was put off until a step needs it."""
        return engine.of(self.lake).session()

    def params_of(self, step: str) -> Any:
        """The Params of a step in this run: its defaults under the run's overrides."""
        return params.build(steps.module(step).Params, self.overrides.get(step, {}))

    # --- reading -----------------------------------------------------------------------------
    def published(self, step: str) -> Published:
        """A step's published output for this run date, recorded as an input; in a refresh, of this
        refresh alone."""
        found = self.lake.published(step, self.as_of)
        if self.refresh and found.manifest.get("refresh") != dataclasses.asdict(self.refresh):
            raise Fault(
                f"{step}: what is published for {found.as_of} does not go on from "
                f"{self.refresh.base}; start the refresh from its first step"
            )
        self._record(found)
        return found

    def previous(self, step: str) -> Published | None:
        """The newest published output with an earlier run date, in a refresh its base's; recorded
        as an input."""
        if self.refresh:
            found = self.lake.at(step, self.refresh.base)
        else:
            found = self.lake.previous(step, self.as_of)
        if found is not None:
            self._record(found)
        return found

    def base(self, step: str) -> Published:
        """A step's published output that a refresh goes on from; raises ``Fault`` without one."""
        found = self.previous(step)
        if found is None:
            raise Fault(f"{step}: there is nothing to go on from; run a night, then refresh")
        return found

    def previous_night(self, step: str) -> Published | None:
        """The newest published output of an earlier night, whatever was refreshed since; recorded
        as an input. A night is then the same with and without the hours before it."""
        for found in self.lake.earlier(step, self.as_of):
            if not found.manifest.get("refresh"):
                self._record(found)
                return found
        return None

    def earlier(self, step: str, label: str) -> Published:
        """A step's published output for an earlier run date, recorded as an input."""
        found = self.lake.published(step, io.parse_as_of(label))
        self._record(found)
        return found

    def read_file(self, path: Path) -> None:
        """Record a file of the lake that is no step's table as an input."""
        name = path.relative_to(self.lake.root).as_posix()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.notes.setdefault("files", {})[name] = digest

    def folder(self, table: str) -> Path:
        """Where a published table lies, for who reads it part by part."""
        folder = self.published(tables.TABLES[table].step).table(table)
        self._count(table, folder)
        return folder

    def frame(self, table: str) -> DataFrame:
        """A published table as a Spark frame."""
        return io.frame(self.spark, self.folder(table))

    def arrow(
        self, table: str, columns: list[str] | None = None, where: ds.Expression | None = None
    ) -> pa.Table:
        """A published table as an Arrow table, for the numeric core."""
        return io.read_arrow(self.folder(table), columns, where)

    def of_people(self, table: str, people: pa.StringArray, columns: list[str]) -> pa.Table:
        """The rows of these people, whose ids are sorted, in a published table; of a few people in
        a fraction of the time that the whole takes."""
        return io.read_rows(self.folder(table), people, columns)

    def source_folder(self) -> Path:
        """The folder, in the source contract's shape, that the step ``source`` prepared."""
        return Path(io.read_json(self.published("source").table("source.json"))["folder"])

    # --- writing -----------------------------------------------------------------------------
    @property
    def staged(self) -> Path:
        """The folder that this step fills."""
        return self.lake.staged(self.step, self.as_of)

    def write(self, name: str, *parts: DataFrame | pa.Table) -> Path:
        """Stage a table from one or more parts; each must have exactly the declared columns.

        Raises ``Fault`` that names every column that differs.
        """
        for number, rows in enumerate(parts):
            self.add(name, number, rows)
        return self.staged / name

    def add(self, name: str, number: int, rows: DataFrame | pa.Table) -> None:
        """Stage the part of this number of a table that is made part by part."""
        table, folder = tables.TABLES[name], self.staged / name
        if isinstance(rows, pa.Table):
            self._check(table, rows.schema)
            io.write_arrow(folder, rows.select(table.schema.names).cast(table.schema), number)
        else:
            from pyspark.sql.pandas.types import to_arrow_schema

            self._check(table, to_arrow_schema(rows.schema, timezone="UTC"))
            ours = rows.select(*table.schema.names)
            ours.write.mode("append").options(**io.SPARK_GROUPS).parquet(str(folder))

    def reset(self) -> None:
        """Empty the staged folder: a re-run leaves nothing of the attempt before it."""
        shutil.rmtree(self.staged, ignore_errors=True)
        shutil.rmtree(self._workshop, ignore_errors=True)
        self.staged.mkdir(parents=True)

    def scratch(self, name: str) -> Path:
        """A new empty folder for what this step alone needs; gone when the night closes."""
        self._workshop.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._workshop))

    @property
    def _workshop(self) -> Path:
        return scratch_folder(self.lake) / io.label(self.as_of) / self.step

    def close(self, params: Any, code_version: str) -> dict[str, Any]:
        """Write the step's manifest beside its tables and return it."""
        manifest: dict[str, Any] = {
            "step": self.step,
            "as_of": self.as_of.isoformat(),
            "run_id": self.run_id,
            "source": self.source,
            "code_version": code_version,
            "params": dataclasses.asdict(params),
            "seed": self.seed,
            "refresh": dataclasses.asdict(self.refresh) if self.refresh else None,
            "inputs": self.inputs,
            "tables": {
                table.name: {
                    "rows": io.count_rows(self.staged / table.name),
                    "bytes": sum(
                        path.stat().st_size for path in io.parquet_files(self.staged / table.name)
                    ),
                }
                for table in tables.of_step(self.step)
            },
            "notes": self.notes,
            "seconds": round(time.monotonic() - self.started, 2),
        }
        io.write_json(self.staged / "manifest.json", manifest)
        for name, facts in manifest["tables"].items():
            log.info(
                "table=%s as_of=%s rows=%d bytes=%d",
                name, io.label(self.as_of), facts["rows"], facts["bytes"],
            )  # fmt: skip
        return manifest

    def _record(self, found: Published) -> None:
        key = f"{found.step}@{found.as_of}"
        self.inputs.setdefault(
            key, {"step": found.step, "as_of": found.as_of, "attempt": found.attempt, "rows": {}}
        )

    def _count(self, table: str, folder: Path) -> None:
        rows = self.inputs[f"{tables.TABLES[table].step}@{io.label(self.as_of)}"]["rows"]
        if table not in rows:  # what is published stays
            rows[table] = io.count_rows(folder)

    def _check(self, table: tables.Table, schema: pa.Schema) -> None:
        differences = io.check_schema(table, schema)
        if differences:
            raise Fault(
                f"{self.step}: the table {table.name} is not as declared in jobs/tables: "
                + "; ".join(differences)
            )


def scratch_folder(lake: Lake) -> Path:
    """Where the steps of a night keep what nobody else reads."""
    return lake.root / ".night" / "scratch"
