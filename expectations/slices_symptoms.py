"""slices_symptoms: what the step slices found wrong."""

from expectations.symptoms import suite

__all__ = ["suite"]
