"""Candidates of one method whose fits share work."""
