"""One small class per kind of camera."""
