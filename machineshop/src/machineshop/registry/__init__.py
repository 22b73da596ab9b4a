"""The OCI distribution API over HTTP."""

from machineshop.registry.app import routes

__all__ = ["routes"]
