"""Entry points that the scheduler runs: parse, load the config, call the library."""
