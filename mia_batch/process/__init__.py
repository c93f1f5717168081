"""This process: exit codes, signals, logging, cores."""
