"""Declared changes: values, their loading from YAML and Python, and their validation."""
