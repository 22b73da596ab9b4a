"""What `registry.py` measures."""
