"""Scoring in the night: which candidates are worth their features, and these features.

The same functions measure the examples that the ranker learns from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from jobs.night import Night
from jobs.retrieval import matrix
from jobs.scoring import features
from jobs.scoring.features import Ground, Pairs, Vectors
from jobs.scoring.scorer import Scorer
from jobs.signals import homes
from jobs.signals.homes import Homes
from jobs.signals.past import Past, Record, bought_pairs
from jobs.signals.shop import Catalogue


@dataclass(frozen=True)
class Scored:
    """What candidates are scored by, as of the night."""

    night: Night
    record: Record
    catalogue: Catalogue
    measured: Mapping[str, np.ndarray]
    homes: Homes
    items: np.ndarray
    content: np.ndarray
    scorer: Scorer
    prior: Mapping[str, float]
    count: int
    count_new: int

    @staticmethod
    def read(night: Night, persons: pa.Table, items: pa.Table) -> Scored:
        """``persons``: person_id, household_id and personalised of everybody; ``items``: item_id
        and category of all items."""
        catalogue = Catalogue.of(items)
        record = Record(night.folder("history"), night.as_of, catalogue.ids)
        measured, living = homes.measured(record, persons, catalogue)
        params = night.params_of("ranker")
        return Scored(
            night,
            record,
            catalogue,
            measured,
            living,
            features.placed(night.arrow("item_factors"), "item_id", catalogue.ids),
            features.placed(night.arrow("content_vectors"), "item_id", catalogue.ids),
            Scorer.of(
                night.arrow("ranker_models"),
                night.arrow("blend_weights"),
                night.arrow("calibration"),
            ),
            params.prior,
            params.scored,
            params.scored_new,
        )

    def nearest(self, pairs: Pairs, always: np.ndarray, new_only: bool) -> np.ndarray:
        """(n_pairs,) bool: the pairs that are worth the cost of their features, the best of each
        person by the prior weights; ``always``: (n_pairs,) bool, kept whatever they weigh;
        ``new_only``: whether what the person knows was left out of them."""
        near = np.where(always, np.inf, self.near(pairs))
        count = self.count_new if new_only else self.count
        return features.nearest(pairs.person, pairs.item, near, count)

    def near(self, pairs: Pairs) -> np.ndarray:
        """(n_pairs,): what they weigh by the prior."""
        return features.linear_score(pairs.signals, self.prior)

    def block(self, people: pa.StringArray) -> Measured:
        """What is measured of these people, sorted ids."""
        return Measured(self, people, self.record.of(people))


@dataclass(frozen=True)
class Measured:
    """A block of people with all they did; pairs have their places as persons."""

    scored: Scored
    people: pa.StringArray
    past: Past

    def bought(self, pairs: Pairs) -> np.ndarray:
        """(n_pairs,) bool: whether the person ever bought the item."""
        n_items = len(self.scored.catalogue.ids)
        known = bought_pairs(self.past, n_items)
        return matrix.among(pairs.person * n_items + pairs.item, known)

    def features(self, pairs: Pairs) -> np.ndarray:
        """(n_pairs, n_features) float32."""
        people, scored = self.people, self.scored
        own = (ds.field("person_id") >= people[0]) & (ds.field("person_id") <= people[-1])
        factors = scored.night.arrow("person_factors", where=own)
        vectors = Vectors(
            scored.items,
            features.placed(factors, "person_id", people, scored.items.shape[1]),
            scored.content,
        )
        mates = scored.homes.mates(people, len(scored.catalogue.ids))
        ground = Ground.of(self.past, scored.catalogue, scored.measured, mates, vectors)
        return features.values(ground, pairs)
