"""policy_values: what policies would bring, by each estimator, and how much the log says of it."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, column, empty, filled, not_below, rows, unique
from jobs.diagnosis.policies.estimators import ESTIMATORS
from jobs.diagnosis.policies.off_policy import EVIDENCE, LOGGED, MEAN, POLICIES, REWARDS, VERDICTS


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A shop without mature lists has no values, and no table says that.", 0),
        *filled("A value needs whose it is, by what, and of what.",
                "surface", "policy", "estimator", "reward"),
        *filled("Whether to believe a value is told with it.", "requests", "rows", "verdict"),
        *filled("The verdict is judged by these.", "effective_sample_size", "effective_rewards",
                "largest_weight", "weight_tail", "overlap", "mean_weight"),
        unique("A value told twice.", "surface", "policy", "estimator"),
        among("A policy that nobody derives.", "policy", (LOGGED, *POLICIES)),
        among("An estimator that is not known.", "estimator", (MEAN, *ESTIMATORS)),
        among("A reward that is not known.", "reward", REWARDS),
        among("A verdict that is none.", "verdict", VERDICTS),
        empty("Evidence with a doubt would be read as evidence.", "reason",
              when=column("verdict") == EVIDENCE, naming=("surface", "policy")),
        not_below("An interval upside down.", "high", "low"),
        between("A negative count is a broken count.", "requests", 0),
        between("A negative count is a broken count.", "rows", 0),
        between("A sample cannot be worth less than nothing.", "effective_sample_size", 0),
        between("Rewards cannot be worth less than nothing.", "effective_rewards", 0),
        between("A share outside 0 to 1.", "largest_weight", 0, 1),
        between("A share outside 0 to 1.", "weight_tail", 0, 1),
        between("A share outside 0 to 1.", "overlap", 0, 1),
        between("A weight below 0.", "mean_weight", 0),
    ]  # fmt: skip
