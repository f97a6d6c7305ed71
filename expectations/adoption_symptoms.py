"""adoption_symptoms: what the step adoption found wrong."""

from expectations.symptoms import suite

__all__ = ["suite"]
