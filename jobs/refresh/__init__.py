"""Between two nights: what changed since, and a release in which only that changed."""
