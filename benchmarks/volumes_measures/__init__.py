"""What `volumes.py` measures."""
