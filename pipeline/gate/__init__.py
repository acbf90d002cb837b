"""The reject gate: what happens to a part some distance behind the camera."""
