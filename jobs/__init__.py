"""What each step of a night does; the folders show the route of the data."""
