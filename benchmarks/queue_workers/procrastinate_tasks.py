"""The worker and client side of Procrastinate: one app with one task. Its database is named by the environment.

As a program it is the worker, with as many slots as its argument says.
"""

import os
import sys

import procrastinate

# Of either side. More connections than slots are never in use, and ten were as fast as thirty.
CONNECTIONS = 10

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(
        conninfo=os.environ["QUEUE_URL"], min_size=CONNECTIONS, max_size=CONNECTIONS
    )
)


@app.task(name="echo")
async def echo(text: str) -> dict[str, str]:
    """What came in. Procrastinate keeps the status of a job, not what it returned."""
    return {"text": text}


if __name__ == "__main__":
    app.run_worker(concurrency=int(sys.argv[1]))
