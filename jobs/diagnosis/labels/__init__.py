"""Outcomes: when they come, and whether they mean the same everywhere."""
