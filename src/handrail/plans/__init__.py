"""Plans as values, and the pure planning and judging that make them."""
