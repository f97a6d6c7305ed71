"""served_symptoms: what the step served found wrong."""

from expectations.symptoms import suite

__all__ = ["suite"]
