"""What the log says: what was served, to whom, what came of it, what the page made of it."""
