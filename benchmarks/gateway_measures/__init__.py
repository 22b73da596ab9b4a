"""What `gateway.py` measures."""
