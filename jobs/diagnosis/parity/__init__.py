"""Training, night and served side by side: inputs, relations, and what moved."""
