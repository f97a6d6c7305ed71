"""A small simulated log with known truth, as the published tables that the diagnosis reads.

People have moods that all their rows share; some buy, some of it comes back. What is to be wrong is
put in by changing the columns before they become tables.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import io, tables
from jobs.io import Lake
from jobs.night import Night
from jobs.tables import FEATURES
from tests.conftest import AS_OF

REGIONS, SEGMENTS = np.array(["north", "south"]), np.array(["gold", "plain", "silver"])
SURFACES, CHANNELS = np.array(["basket", "home"]), np.array(["app", "store", "web"])
CATEGORIES = np.array(["beds", "chairs", "lamps", "tables"])
DEFINED: dict[str, Any] = {
    "kpi": '"conversion"', "model_metric": '{"name": "ndcg", "at": 5}',
    "label": '{"event": "purchase", "attribution": "request", "within_hours": 48, '
             '"maturity_days": 5, "returns": "keep"}',
    "decision": '{"threshold": null, "capacity": 5, "value_of_hit": 1.0, "cost_of_show": 0.0}',
    "segments": '["region", "segment", "category", "surface"]', "baseline": '"popularity"',
    "guardrails": "[]", "experiments": "[]",
}  # fmt: skip
SAMPLED = 10_000  # places whose features were logged


def places(seed: int, requests: int = 8_000, people: int = 1_500, length: int = 5) -> dict:
    """Columns of ``served``: 6 weeks, the last 2 current; a calibrated ``score`` whose chance falls
    by place, a person's mood on all of their rows."""
    rng = np.random.default_rng(seed)
    who = rng.integers(0, people, requests)
    age = rng.uniform(0, 42, requests)  # days
    of, position = (
        np.repeat(np.arange(requests), length),
        np.tile(np.arange(1, length + 1), requests),
    )
    rows = len(of)
    score = np.sort(rng.beta(1.2, 8, (requests, length)), axis=1)[:, ::-1].ravel()
    home = {name: rng.integers(0, count, people) for name, count in
            (("region", 2), ("segment", 3), ("channel", 3))}  # fmt: skip
    mood = rng.gamma(4, 0.25, people)
    chance = np.clip(score * mood[who][of] * position**-0.3, 0, 1)
    return {
        "who": who[of], "age": age[of], "request": of, "position": position, "score": score,
        "chance": chance, "luck": rng.random(rows), "wait": rng.uniform(0, 1, rows),
        "lag": np.where(rng.random(rows) < 0.02, rng.uniform(0.2, 3, rows), 0.01),
        "surface": np.repeat(SURFACES[rng.integers(0, 2, requests)], length),
        "category": CATEGORIES[rng.integers(0, 4, rows)],
        "region": REGIONS[home["region"]][who][of], "segment": SEGMENTS[home["segment"]][who][of],
        "channel": CHANNELS[home["channel"]][who][of], "shown": position.astype(float),
    }  # fmt: skip


def served(made: dict, threshold: float = 0.0) -> pa.Table:
    """The table ``served`` of the columns; what scores below ``threshold`` was not shown."""
    shown = np.where((made["score"] < threshold) & (made["age"] < 14), np.nan, made["shown"])
    bought = (made["luck"] < made["chance"]) & np.isfinite(shown)
    arrives = made["age"] - made["wait"] - made["lag"]
    bought &= (made["age"] > made["wait"]) & (arrives > 0)
    asked, when = _times(made["age"]), _times(made["age"] - made["wait"])
    rows = {
        "request_id": [f"r{n}" for n in made["request"]], "request_time": asked,
        "day": [moment.date() for moment in asked],
        "period": np.where(made["age"] < 14, "current", "reference"), "mature": made["age"] > 5,
        "surface": made["surface"], "visitor": [f"v{n}" for n in made["who"]],
        "key_type": "account", "key": [f"v{n}" for n in made["who"]], "region": made["region"],
        "segment": made["segment"], "tenure": "long", "position": made["position"],
        "item_id": [f"i{n % 50}" for n in made["request"] + made["position"]],
        "category": made["category"], "release_id": "one", "published": True,
        "score": made["score"],
        "shown_position": [None if np.isnan(n) else int(n) for n in shown],
        "clicked": bought, "bought": bought, "value": np.where(bought, 3.0, 0.0), "returned": False,
        "bought_time": [moment if yes else None for moment, yes in zip(when, bought, strict=True)],
        "bought_received": [moment if yes else None for moment, yes in
                            zip(_times(arrives), bought, strict=True)],
        "channel": made["channel"],
    }  # fmt: skip
    return columns("served", rows, len(made["age"]))


def visits(made: dict) -> pa.Table:
    """The table ``visits``: a row per person and day."""
    bought = made["luck"] < made["chance"]
    key = made["who"] * 100 + made["age"].astype(int)
    _, first, of = np.unique(key, return_index=True, return_inverse=True)
    orders = np.bincount(of, bought)
    day = [(AS_OF - timedelta(days=float(age))).date() for age in made["age"][first]]
    return columns("visits", {
        "visitor": [f"v{n}" for n in made["who"][first]], "day": day, "experiment": "", "arm": "",
        "period": np.where(made["age"][first] < 14, "current", "reference"),
        "key_type": "account", "region": made["region"][first], "segment": made["segment"][first],
        "tenure": "long", "requests": 1, "clicks": orders.astype(int),
        "orders": orders.astype(int), "revenue": orders * 3.0, "attributed": orders * 3.0,
        "before_value": 0.0, "returning": True,
    }, len(first))  # fmt: skip


def features(made: dict, seed: int = 0) -> pa.Table:
    """The table ``served_features``: the first feature drives the score, the others are noise."""
    rng = np.random.default_rng(seed)
    rows = served({name: values[:SAMPLED] for name, values in made.items()})
    noise = {name: rng.normal(0, 1, rows.num_rows) for name in FEATURES}
    noise[FEATURES[0]] = made["score"][:SAMPLED]
    found = {name: rows[name] for name in rows.column_names} | noise
    found |= {"weight": 2.0, "revenue": rows["value"]}
    return columns("served_features", found, rows.num_rows)


def events(
    made: dict, seed: int = 0, returns: float = 0.04, views: int = 20_000, soon: str = ""
) -> pa.Table:
    """The table ``events``: the answers of the log, views and purchases beside it, and returns;
    ``soon``: a channel in which they come within two hours since two weeks."""
    rng = np.random.default_rng(seed)
    log = served(made)
    came = np.flatnonzero(log["bought"].to_numpy())
    old = views
    age = np.r_[rng.uniform(0, 100, old), made["age"][came] - made["wait"][came]]
    kind = np.where(np.arange(len(age)) < old // 2, "view", "purchase")
    lag = np.where(rng.random(len(age)) < 0.01, rng.uniform(0.1, 2, len(age)), 0.005)
    lag[old:] = made["lag"][came]
    who = np.r_[rng.integers(0, 1_500, old), made["who"][came]]
    channel = np.r_[CHANNELS[rng.integers(0, 3, old)], made["channel"][came]]
    request = np.r_[np.full(old, -1), made["request"][came]]
    back = (kind == "purchase") & (rng.random(len(age)) < returns)
    until = np.where((channel == soon) & (age < 14), 0.08, rng.uniform(3, 20, len(age)))
    back &= age > until
    return _events(age, lag, kind, who, channel, request, np.flatnonzero(back), until)


def _events(age, lag, kind, who, channel, request, back, until) -> pa.Table:
    age = np.r_[age, age[back] - until[back]]
    lag = np.r_[lag, np.full(len(back), 0.005)]
    kept = lag < age
    item = np.arange(len(who)) % 50
    rows = {
        "kind": np.r_[kind, np.full(len(back), "return")], "who": np.r_[who, who[back]],
        "channel": np.r_[channel, channel[back]], "item": np.r_[item, item[back]],
        "request": np.r_[request, np.full(len(back), -1)],
    }  # fmt: skip
    rows = {name: values[kept] for name, values in rows.items()}
    moment, got = _times(age[kept]), _times((age - lag)[kept])
    return columns("events", {
        "event_id": [f"e{n}" for n in range(len(moment))], "revision": 0, "event_time": moment,
        "received_time": got, "first_received": got, "key_type": "account",
        "key": [f"v{n}" for n in rows["who"]], "event_type": rows["kind"],
        "item_id": [f"i{n}" for n in rows["item"]], "quantity": 1.0, "value": 3.0 + rows["item"],
        "channel": rows["channel"], "region": "north",
        "request_id": [None if n < 0 else f"r{n}" for n in rows["request"]],
        "event_date": [one.date() for one in moment],
    }, len(moment))  # fmt: skip


def _times(age: np.ndarray) -> list[datetime]:
    return [AS_OF - timedelta(days=float(days)) for days in age]


def columns(name: str, rows: dict[str, Any], size: int) -> pa.Table:
    """Columns, with scalars repeated and nulls for those not given, as the declared table."""
    schema = tables.TABLES[name].schema
    arrays = []
    for field in schema:
        values = rows.get(field.name)
        if isinstance(values, pa.ChunkedArray):
            arrays.append(values.cast(field.type).combine_chunks())
            continue
        whole = values if isinstance(values, list | np.ndarray) else [values] * size
        arrays.append(pa.array(whole, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def lake(folder: Path, **found: pa.Table) -> Lake:
    """A lake in which the definitions and these tables are published; others of their steps are
    empty."""
    made = Lake(folder / "lake").open()
    rows = [{"name": name, "value": value} for name, value in DEFINED.items()]
    schema = tables.TABLES["definitions"].schema
    found = {"definitions": pa.Table.from_pylist(rows, schema)} | found
    for step in {tables.TABLES[name].step for name in (*found, "served", "events")}:
        for table in tables.of_step(step):
            one = found.get(table.name, table.schema.empty_table())
            io.write_arrow(made.staged(step, AS_OF) / table.name, one)
        made.publish(step, AS_OF, "one")
    return made


def ran(made: Lake, step: str, module: Any) -> tuple[Night, dict[str, list[dict[str, Any]]]]:
    """Run a step and read what it staged."""
    night = Night(made, AS_OF, "one", "small", step)
    night.reset()
    module.run(night, module.Params())
    night.close(module.Params(), "test")
    return night, {
        table.name: io.read_arrow(night.staged / table.name).to_pylist()
        for table in tables.of_step(step)
    }
