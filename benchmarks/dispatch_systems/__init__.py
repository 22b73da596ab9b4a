"""The systems that `dispatch.py` measures, one file each; `base` says what they share."""
