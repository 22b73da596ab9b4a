"""A type is made ready to be read before there are threads that read it.

Two threads that are the first to read one at the same time would crash the interpreter, whose library fills in what it
knows of a type only then. `make check` sees to it that every decoder is made with its module; this one sees it matter.
"""

import subprocess
import sys

TRIES = 8
"""Without a decoder that is ready, about one try in two crashes."""
PROGRAM = """
import sys, threading
from machineshop.models import DeploymentConfig
from machineshop.store.deployment_rows import decode_config, encode_config

sys.setswitchinterval(1e-6)
text = encode_config(DeploymentConfig(name="first-read", image="image", gpu_type="none"))
together = threading.Barrier(4)
names = []

def read():
    together.wait()
    names.append(decode_config(text).name)

threads = [threading.Thread(target=read) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*names)
"""


def test_threads_that_are_the_first_to_read_a_type_all_read_it() -> None:
    for _ in range(TRIES):
        finished = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
        )
        assert (finished.returncode, finished.stdout.split()) == (0, ["first-read"] * 4), finished.stderr
