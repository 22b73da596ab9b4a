"""Whom `volumes.py` measures."""
