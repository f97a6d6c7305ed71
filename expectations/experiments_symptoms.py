"""experiments_symptoms: what the step experiments found wrong."""

from expectations.symptoms import suite

__all__ = ["suite"]
