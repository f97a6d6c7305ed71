"""What was served, computed again and held against what was published."""
