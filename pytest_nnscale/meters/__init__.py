"""Meters: one file a metric, each opening with its contract."""
