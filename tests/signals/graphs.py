"""Little shops of keys and links, and nights over them without the other steps."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import io, tables
from jobs.io import Lake
from jobs.night import Night
from jobs.signals import identities
from jobs.sources import contract
from tests.conftest import AS_OF

DAY = timedelta(days=1)
EVENT = {
    "revision": 0, "event_type": "view", "item_id": "milk", "quantity": 1.0, "region": "north",
}  # fmt: skip
# Small enough that random graphs break every cap.
TIGHT = {
    "incremental_links": 0,
    "max_joined": {"cookie": 2, "device": 2, "other": 3},
    "max_keys_per_person": 5,
    "max_persons_per_household": 3,
}


def link(a: str, b: str, days_ago: float = 10, **changes: Any) -> dict[str, Any]:
    """A login between two keys (``type:key``) some days before the night, with changes."""
    (type_a, key_a), (type_b, key_b) = a.split(":"), b.split(":")
    return {
        "key_type_a": type_a, "key_a": key_a, "key_type_b": type_b, "key_b": key_b,
        "source": "login", "confidence": 1.0, "observed_time": AS_OF - days_ago * DAY,
    } | changes  # fmt: skip


def event(key: str, days_ago: float, **changes: Any) -> dict[str, Any]:
    """A row of the table ``events``: received when it happened, some days before the night."""
    key_type, name = key.split(":")
    moment = AS_OF - days_ago * DAY
    return EVENT | {
        "event_id": f"{key}@{days_ago}", "event_time": moment, "received_time": moment,
        "first_received": moment, "key_type": key_type, "key": name, "event_date": moment.date(),
    } | changes  # fmt: skip


class Shop:
    """A source of events, links and people, and the lake that its nights fill."""

    def __init__(
        self,
        lake: Lake,
        folder: Path,
        events: Iterable[dict],
        links: Iterable[dict] | None = (),
        people: Iterable[dict] = (),
    ):
        self.lake, self.folder = lake, folder
        self.events = list(events)
        self.put(identity_links=links, people=people)

    def put(self, **rows: Iterable[dict] | None) -> None:
        """Write contract tables in place of what was there; None leaves one out."""
        for name, given in rows.items():
            shutil.rmtree(self.folder / name, ignore_errors=True)
            if given is not None:
                table = pa.Table.from_pylist(list(given), contract.schema(name))
                io.write_arrow(self.folder / name, table)

    def night(self, as_of: datetime = AS_OF, step: str = "identities", **params: Any) -> Night:
        """The context of a step, its sources and events published."""
        made = self._night("source", as_of, params)
        io.write_json(made.staged / "source.json", {"folder": str(self.folder)})
        self._publish(made)
        made = self._night("events", as_of, params)
        known = [row for row in self.events if row["first_received"] < as_of]
        made.write("events", pa.Table.from_pylist(known, tables.TABLES["events"].schema))
        self._publish(made)
        return self._night(step, as_of, params)

    def run(self, as_of: datetime = AS_OF, **params: Any) -> dict[str, list[dict]]:
        """Run and publish the step ``identities``; its tables by name."""
        night = self.night(as_of, **params)
        chosen = night.params_of("identities")
        identities.run(night, chosen)
        night.close(chosen, "test")
        found = {
            table.name: io.read_arrow(night.staged / table.name).to_pylist()
            for table in tables.of_step("identities")
        }
        self.lake.publish("identities", as_of, "test-run")
        self.notes = night.notes[identities.continuing.NOTE]
        return found

    def _night(self, step: str, as_of: datetime, params: dict) -> Night:
        made = Night(self.lake, as_of, "test-run", "test", step, {"identities": params})
        made.reset()
        return made

    def _publish(self, night: Night) -> None:
        io.write_json(night.staged / "manifest.json", {})
        self.lake.publish(night.step, night.as_of, "test-run")


def persons(found: dict[str, list[dict]]) -> dict[str, str]:
    """Person by key, both as ``type:key``."""
    return {f"{r['key_type']}:{r['key']}": r["person_id"] for r in found["identities"]}


def outcomes(found: dict[str, list[dict]]) -> dict[str, str]:
    """Outcome by a link's two keys, ``a-b`` without their types."""
    return {f"{r['key_a']}-{r['key_b']}": r["outcome"] for r in found["identity_links"]}


def counted(found: dict[str, list[dict]]) -> dict[str, int]:
    return {row["outcome"]: row["rows"] for row in found["identity_counts"]}


def random_shop(seed: int, worlds: int = 40) -> dict[str, list[dict]]:
    """``events``, ``links`` and ``people`` of many small worlds over 40 days, with all that a link
    can be: late, taken back, repeated, unsure, nonsense, to keys that come later or never."""
    random = np.random.default_rng(seed)
    events, links, people = [], [], []
    for world in range(worlds):
        types = random.choice(
            ["account", "cookie", "device", "email_hash", "loyalty_card"],
            random.integers(3, 9), p=[0.25, 0.3, 0.25, 0.1, 0.1],
        )  # fmt: skip
        keys = [f"{kind}:{world}-{number}" for number, kind in enumerate(types)]
        for key in keys:
            if not key.startswith("email_hash") and random.random() < 0.9:
                first = float(random.integers(0, 40)) + 0.5
                events += [event(key, first), event(key, first / 2)]
            elif random.random() < 0.5:
                kind, name = key.split(":")
                people.append({"key_type": kind, "key": name})
        for _ in range(random.integers(2, 9)):
            a, b = random.choice(keys, 2, replace=random.random() < 0.05)
            source = random.choice(
                ["login", "probabilistic", "household", "email_click"], p=[0.5, 0.25, 0.15, 0.1]
            )
            confidence = random.choice([1.0, 0.95, 0.9, 0.6, 1.7], p=[0.6, 0.15, 0.1, 0.1, 0.05])
            action = random.choice(["link", "unlink"], p=[0.8, 0.2])
            made = link(
                a, b, float(random.integers(0, 40)), source=str(source),
                confidence=float(confidence), action=str(action),
            )  # fmt: skip
            if random.random() < 0.3:
                late = float(random.choice([-0.5, 1.0, 12.0]))
                made["received_time"] = made["observed_time"] + late * DAY
            links.append(made)
            if random.random() < 0.3:
                links.append({**made, "observed_time": made["observed_time"] + 3 * DAY,
                              "action": str(random.choice(["link", "unlink"]))})  # fmt: skip
    order = random.permutation(len(links))
    return {"events": events, "links": [links[i] for i in order], "people": people}


def in_order(rows: list[dict]) -> list[dict]:
    return sorted(rows, key=lambda row: str(list(row.values())))
