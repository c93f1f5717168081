"""Metrics of a membership attack with confidence intervals."""
