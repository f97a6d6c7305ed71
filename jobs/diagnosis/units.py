"""What two systems multiply by where they mean different units of one thing."""

from __future__ import annotations

# Per mille and per cent, euro and cent; days and weeks, hours and days, minutes and hours, minutes
# and days, seconds and hours, seconds and days; milli and micro.
FACTORS = (10.0, 100.0, 1_000.0, 7.0, 24.0, 60.0, 1_440.0, 3_600.0, 86_400.0, 1_000_000.0)
# Either way round.
RATIOS = (*FACTORS, *(1 / factor for factor in FACTORS))
