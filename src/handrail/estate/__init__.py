"""The declared world: values, their loading from YAML, their validation, and the graph of needs."""
