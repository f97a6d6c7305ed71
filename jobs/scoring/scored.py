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
from jobs.scoring import features
from jobs.scoring.features import Ground, Pairs, Vectors
from jobs.scoring.scorer import Scorer
from jobs.signals import shop
from jobs.signals.past import Record
from jobs.signals.shop import Catalogue


@dataclass(frozen=True)
class Scored:
    """What candidates are scored by, as of the night."""

    night: Night
    record: Record
    catalogue: Catalogue
    measured: Mapping[str, np.ndarray]
    items: np.ndarray
    content: np.ndarray
    scorer: Scorer
    prior: Mapping[str, float]
    count: int

    @staticmethod
    def read(night: Night, people: pa.StringArray, items: pa.Table) -> Scored:
        """``people``: the sorted ids of everybody; ``items``: item_id and category of all items."""
        catalogue = Catalogue.of(items)
        record = Record(night.published("sessions").table("history"), night.as_of, catalogue.ids)
        params = night.params_of("ranker")
        return Scored(
            night,
            record,
            catalogue,
            shop.measure(record.blocks(people), catalogue),
            features.placed(night.arrow("item_factors"), "item_id", catalogue.ids),
            features.placed(night.arrow("content_vectors"), "item_id", catalogue.ids),
            Scorer.of(
                night.arrow("ranker_models"),
                night.arrow("blend_weights"),
                night.arrow("calibration"),
            ),
            params.prior,
            params.scored,
        )

    def nearest(self, pairs: Pairs, allowed: np.ndarray, always: np.ndarray) -> np.ndarray:
        """(n_pairs,) bool: the allowed pairs that are worth the cost of their features, the best
        of each person by the prior weights; ``always``: (n_pairs,) bool, kept where allowed."""
        near = features.linear_score(pairs.signals, self.prior)
        near = np.where(allowed, np.where(always, np.inf, near), -np.inf)
        return features.nearest(pairs.person, pairs.item, near, self.count) & allowed

    def features(self, people: pa.StringArray, pairs: Pairs) -> np.ndarray:
        """(n_pairs, n_features) float32 features of pairs of these people, sorted ids."""
        own = (ds.field("person_id") >= people[0]) & (ds.field("person_id") <= people[-1])
        factors = self.night.arrow("person_factors", where=own)
        vectors = Vectors(
            self.items,
            features.placed(factors, "person_id", people, self.items.shape[1]),
            self.content,
        )
        ground = Ground.of(self.record.of(people), self.catalogue, self.measured, vectors)
        return features.values(ground, pairs)
