"""Summary files, tables and pages that people read."""
