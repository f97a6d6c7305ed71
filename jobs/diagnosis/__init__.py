"""Data, model or system: what the log, its outcomes and the releases say of a fault."""
