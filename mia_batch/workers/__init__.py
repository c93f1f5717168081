"""Processes that do the tasks of the attack stage."""
