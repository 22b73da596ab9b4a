"""What `runtime.py` measures."""
