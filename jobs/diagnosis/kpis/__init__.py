"""What the business sees, and whether it fell suddenly."""
