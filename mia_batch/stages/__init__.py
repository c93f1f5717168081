"""What each stage does, in order."""
