"""off_policy_symptoms: what the step off_policy found wrong."""

from expectations.symptoms import suite

__all__ = ["suite"]
