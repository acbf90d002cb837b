"""One proved plan, and the backends that run it."""
