"""What `worker.py` measures, one file each."""
