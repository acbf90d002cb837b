"""The backends that can run a plan."""
