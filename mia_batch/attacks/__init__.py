"""Attacks: pure functions of arrays, without cluster, framework or files."""
