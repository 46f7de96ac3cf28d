"""Kits: features beside the core, built only on the core. None imports another, nor an adapter."""
