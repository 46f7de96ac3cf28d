"""The only place that chooses adapters, from settings."""
