"""labels_symptoms: what the step labels found wrong."""

from expectations.symptoms import suite

__all__ = ["suite"]
