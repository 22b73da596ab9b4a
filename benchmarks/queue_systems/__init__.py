"""The systems that `queue.py` measures, one file each; `base` says what they share."""
