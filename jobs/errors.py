"""Errors that a person reads: each says what is wrong, where, and what to do."""

from __future__ import annotations


class Fault(Exception):
    """Bad input or a bad place: running again unchanged would fail again, so nothing retries it."""


class GateRed(Fault):
    """A critical expectation failed: the staged tables stay unpublished."""
