"""parity_symptoms: what the step parity found wrong."""

from expectations.symptoms import suite

__all__ = ["suite"]
