"""Image registries that speak the OCI distribution protocol, version 2."""
