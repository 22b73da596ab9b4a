"""Whom `gateway.py` measures."""
