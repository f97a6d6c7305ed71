"""leakage_symptoms: what the step leakage found wrong."""

from expectations.symptoms import suite

__all__ = ["suite"]
