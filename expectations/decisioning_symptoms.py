"""decisioning_symptoms: what the step decisioning found wrong."""

from expectations.symptoms import suite

__all__ = ["suite"]
