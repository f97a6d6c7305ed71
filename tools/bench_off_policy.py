"""The benchmark's part ``off_policy``: the diagnosis' estimators beside a known truth.

The Open Bandit Dataset (Saito, Aihara, Matsutani and Narita, 2021) has what a fashion shop showed
by Bernoulli Thompson sampling, with the chances, and what it showed at the same time by lot. So
the value of the lot, estimated from the first log alone, stands beside what the lot really
brought. Its small form, 10,000 rows a campaign and policy, travels in the wheel of ``obp``, which
is downloaded but not installed; pip's own index settings hold.

A row is a place of a request of its own: the data do not say which rows were shown together. The
true value has an error too: its interval is Wilson's.
"""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from jobs.diagnosis.policies.estimators import Evaluation, Log
from jobs.diagnosis.policies.off_policy import Params, doubt
from jobs.diagnosis.policies.policies import pairs, uniform
from jobs.evaluation import metrics

WHEEL = "obp==0.4.1"
CAMPAIGNS = ("all", "men", "women")
SEED = 20171201


def download(folder: Path) -> Path:
    """The wheel in the folder, fetched where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.glob("obp-*.whl")):
        line = [sys.executable, "-m", "pip", "download", WHEEL, "--no-deps", "--dest", str(folder)]
        subprocess.run(line, check=True)
    return next(folder.glob("obp-*.whl"))


def read(wheel: Path, policy: str, campaign: str) -> pa.Table:
    """item_id, position, propensity_score and click of a campaign's rows under a policy."""
    columns = ["item_id", "position", "propensity_score", "click"]
    with zipfile.ZipFile(wheel) as packed:
        text = packed.read(f"obp/dataset/obd/{policy}/{campaign}/{campaign}.csv")
    return csv.read_csv(
        io.BytesIO(text), convert_options=csv.ConvertOptions(include_columns=columns)
    )


def log_of(rows: pa.Table, n_items: int) -> Log:
    """One context: all rows had the same candidates."""
    zeros = np.zeros(rows.num_rows, np.int64)
    return Log(
        request=np.arange(rows.num_rows),
        place=rows["position"].to_numpy() - 1,
        context=zeros,
        item=rows["item_id"].to_numpy(),
        propensity=rows["propensity_score"].to_numpy(),
        reward=rows["click"].to_numpy().astype(float),
        segment=zeros[:1],
        items=n_items,
    )


def judge(shown: pa.Table, by_lot: pa.Table) -> dict[str, Any]:
    """What the lot brings, by each estimator from the other log and in truth; clicks a row."""
    items = np.unique(by_lot["item_id"].to_numpy())
    log = log_of(shown, int(items.max()) + 1)
    target = uniform(*pairs(np.zeros(len(items), np.int64), items)[:2], log.places)
    evaluation = Evaluation(log, SEED)
    found, support = evaluation.of(target)
    clicks = int(by_lot["click"].to_numpy().sum())
    low, high = metrics.wilson(clicks, by_lot.num_rows)
    return {
        "truth": {"value": clicks / by_lot.num_rows, "low": low, "high": high},
        "logged": _numbers(evaluation.logged()),
        "estimates": {name: _numbers(one) for name, one in found.items()},
        "support": vars(support),
        "doubt": doubt(support, "clicks", Params()),
    }


def measure(home: Path) -> dict[str, dict[str, Any]]:
    """Each campaign's estimates and truth."""
    wheel = download(home / "off_policy")
    return {one: judge(read(wheel, "bts", one), read(wheel, "random", one)) for one in CAMPAIGNS}


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown: values and intervals by campaign, in clicks of a thousand places."""
    lines = [
        "## Off-policy", "",
        "What items drawn by lot bring, in clicks of 1,000 places with 95 % intervals: in truth, "
        "and estimated from what Thompson sampling showed (Open Bandit Dataset, its small form).",
        "",
        _row(["", *found]), _row(["---", *["--:"] * len(found)]),
        _row(["**truth**", *(_said(one["truth"]) for one in found.values())]),
        _row(["logged policy", *(_said(one["logged"]) for one in found.values())]),
    ]  # fmt: skip
    for name in next(iter(found.values()))["estimates"]:
        lines.append(_row([name, *(_said(one["estimates"][name]) for one in found.values())]))
    for name, digits in (
        ("effective_sample_size", 0), ("effective_rewards", 1), ("largest_weight", 3),
        ("overlap", 3), ("mean_weight", 2),
    ):  # fmt: skip
        values = [one["support"][name] for one in found.values()]
        lines.append(_row([name.replace("_", " "), *(f"{v:,.{digits}f}" for v in values)]))
    doubts = [one["doubt"] or "evidence" for one in found.values()]
    return [*lines, _row(["verdict", *doubts]), ""]


def _numbers(one: Any) -> dict[str, float]:
    return {"value": one.value, "low": one.low, "high": one.high}


def _said(one: dict[str, float]) -> str:
    value, low, high = (1_000 * one[name] for name in ("value", "low", "high"))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
