"""What other policies would have brought, from the log alone."""
