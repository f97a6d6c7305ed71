"""kpis_symptoms: what the step kpis found wrong."""

from expectations.symptoms import suite

__all__ = ["suite"]
