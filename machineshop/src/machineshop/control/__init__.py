"""The control loops, and what they do in one pass."""
