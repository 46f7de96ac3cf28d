"""A directory tree as a store: `FilesStore` is the adapter of `handrail.ports.Store`."""

from handrail.adapters.files.store import FilesStore

__all__ = ["FilesStore"]
