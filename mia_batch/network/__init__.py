"""MindSpore: with models/ the only room that imports it."""
