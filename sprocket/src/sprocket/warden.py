"""Ends a model's process, and all that it has left behind, when the worker is gone: a small program of its own.

Place in the flow: `child.py` runs it as `python -I -S warden.py`, as the first of the process group that it is to end,
with a pipe as stdin whose other end is the worker's alone. That pipe ends with the worker, however that ends. The model
itself could not see to it: it may hold Python's global lock for as long as it likes, and the system's own signal for a
parent's death would reach the one process only.
"""

import os

os.read(0, 1)
os.killpg(0, 9)
