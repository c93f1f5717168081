"""The grid engine: candidates that share work, the order of tasks, the final fit."""
