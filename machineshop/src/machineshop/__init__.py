"""Machineshop: dedicated container inference that anyone can run."""

from importlib.metadata import version

__version__ = version("machineshop")
