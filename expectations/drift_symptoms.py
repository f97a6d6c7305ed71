"""drift_symptoms: what the step drift found wrong."""

from expectations.symptoms import suite

__all__ = ["suite"]
