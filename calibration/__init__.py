"""Thresholds, geometry and drift: what makes a plan fit one station."""
