"""How much intent to buy an item a person's events show.

Reads ``history``. Writes ``interactions`` (a row per person and item with positive net intent).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs import io
from jobs.errors import Fault
from jobs.night import Night
from jobs.params import check
from jobs.signals.events import EVENT_TYPES


@dataclass(frozen=True)
class Params:
    """How an event counts towards intent."""

    # A purchase is the goal; a cart is a plan that half of the time becomes one; views and clicks
    # are cheap and many, so a dozen of them stay below one purchase. What goes back subtracts.
    type_weights: Mapping[str, float] = field(
        default_factory=lambda: {
            "purchase": 1.0, "add_to_cart": 0.4, "click": 0.04, "view": 0.03,
            "remove_from_cart": -0.4, "return": -1.0, "reject": -1.0,
        }
    )  # fmt: skip
    # The last days at full weight: what a person did this week tells most about the next one.
    fresh_days: float = 7.0
    # Old behaviour keeps this share, so that the last week counts 4 times old behaviour.
    old_share: float = 0.25
    # Between the two the weight falls smoothly, by 1/e in this many days.
    fade_days: float = 30.0
    # A dear purchase says more than a cheap one, but by its logarithm: 1 + this * ln(1 + value).
    value_weight: float = 0.1

    def __post_init__(self) -> None:
        check(self.fresh_days > 0, "fresh_days must be positive")
        check(0 < self.old_share <= 1, "old_share must be in (0, 1]")
        check(self.fade_days > 0, "fade_days must be positive")
        check(self.value_weight >= 0, "value_weight must not be negative")
        unknown = set(self.type_weights) - set(EVENT_TYPES)
        check(not unknown, f"type_weights names unknown event types: {sorted(unknown)}")


def run(night: Night, params: Params) -> None:
    """Stage ``interactions``."""
    night.write("interactions", interactions(night.frame("history"), night.as_of, params))
    if not io.count_rows(night.staged / "interactions"):
        raise Fault(
            f"interactions: no person with consent has a signal of intent before {night.as_of}; "
            "check the consents in people and the event types in events"
        )


def interactions(history: DataFrame, as_of: datetime, params: Params) -> DataFrame:
    """The table ``interactions`` from the history received before ``as_of``.

    The weight of a pair is the sum over its events of type x recency x value; pairs whose sum is
    not positive (returned, rejected) are left out.
    """
    bought = F.col("event_type") == "purchase"
    returned = F.col("event_type") == "return"
    weight = type_weight(params) * recency(as_of, params) * value_factor(params)
    return (
        history.where(F.col("received_time") < F.lit(as_of))
        .groupBy("person_id", "item_id")
        .agg(
            # Spark adds in any order; rounding makes a rerun equal to the last bit.
            F.round(F.sum(weight), 9).alias("weight"),
            F.sum(F.when(bought, 1.0).when(returned, -1.0).otherwise(0.0)).alias("purchases"),
            F.count(F.lit(1)).alias("events"),
            F.min("event_time").alias("first_time"),
            F.max("event_time").alias("last_time"),
        )
        .where(F.col("weight") > 0)
    )


def type_weight(params: Params) -> Column:
    """The weight of the row's event type; 0 for a type without one."""
    chosen = F.lit(0.0)
    for name, weight in sorted(params.type_weights.items()):
        chosen = F.when(F.col("event_type") == name, F.lit(weight)).otherwise(chosen)
    return chosen


def recency(as_of: datetime, params: Params) -> Column:
    """1 for the fresh days, then a smooth fall to the share that old behaviour keeps."""
    days = (F.lit(as_of).cast("double") - F.col("event_time").cast("double")) / 86_400
    past = F.greatest(days - params.fresh_days, F.lit(0.0))
    return params.old_share + (1 - params.old_share) * F.exp(-past / params.fade_days)


def value_factor(params: Params) -> Column:
    """1 + value_weight * ln(1 + value); 1 where the value is unknown."""
    return 1 + params.value_weight * F.log1p(F.coalesce("value", F.lit(0.0)))
