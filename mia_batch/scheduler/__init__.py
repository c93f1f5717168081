"""Slurm: what is asked of it, and what it was given to do."""
