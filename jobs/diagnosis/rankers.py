"""What ranked in a night that served."""

from __future__ import annotations

from jobs import io
from jobs.night import Night
from jobs.scoring import features
from jobs.scoring.scorer import Scorer


def scorer_of(night: Night, label: str) -> Scorer:
    """What ranked in the night ``label``."""
    ranker = night.earlier("ranker", label)
    return Scorer.of(*(
        io.read_arrow(ranker.table(name))
        for name in ("ranker_models", "blend_weights", "calibration")
    ))  # fmt: skip


def held(night: Night, label: str) -> bool:
    """Whether the lake still has what ranked in the night ``label``, by the features of today."""
    lists, ranker = (night.lake.at(step, label) for step in ("recommendations", "ranker"))
    return lists is not None and ranker is not None and features.held(lists.table("features"))
