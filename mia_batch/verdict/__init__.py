"""The verdict of an audit, from the metrics alone."""
