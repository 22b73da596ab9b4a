"""What `queue.py` measures, one file each: how it is measured, its table, its rows and their bars."""
