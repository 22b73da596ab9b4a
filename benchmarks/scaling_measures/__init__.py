"""What `scaling.py` measures."""
