"""replay_symptoms: what the step replay found wrong."""

from expectations.symptoms import suite

__all__ = ["suite"]
