"""Whom `registry.py` measures."""
