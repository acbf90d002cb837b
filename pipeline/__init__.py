"""Capture, infer, publish: the line itself. Imports neither torch nor tensorrt."""
