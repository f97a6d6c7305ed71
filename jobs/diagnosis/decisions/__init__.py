"""How scores are used: calibration, thresholds, and the slices that lose."""
