"""Experiments: who is in which arm, whether that can be read, and what it says."""
