"""The Redis guard."""
