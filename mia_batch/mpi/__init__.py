"""Ranks: the only room that imports mpi4py."""
