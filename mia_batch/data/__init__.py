"""Samples by index, and which of them are members."""
