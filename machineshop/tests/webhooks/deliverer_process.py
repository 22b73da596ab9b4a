"""A deliverer in a process of its own, to be killed.

Arguments: the database's URL, and how many seconds its clock is ahead.
"""

import asyncio
import sys
import time

from machineshop.api.job_view import job_view
from machineshop.config import parse_networks
from machineshop.control.deliverer import Deliverer
from machineshop.control.loop import Loop
from machineshop.control.sender import Sender
from machineshop.services.targets import Targets
from machineshop.services.webhooks import WebhookService
from machineshop.store.database import Database


async def main(url: str, ahead_seconds: float) -> None:
    def clock() -> float:
        return time.time() + ahead_seconds

    database = Database(url)
    database.start()
    targets = Targets(parse_networks(["127.0.0.0/8"]), loopback=False, own_port=lambda: 0)
    deliverer = Deliverer(database, WebhookService(database, job_view, clock), Sender(targets), clock=clock)
    loop = Loop("deliver", deliverer.run_once, 0.05, clock)
    deliverer.on_room(loop.wake)
    loop.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
