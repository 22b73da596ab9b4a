"""A deliverer in a process of its own, to be killed.

Arguments: the database's URL, the file of the keys, and how many seconds its clock is ahead.
"""

import asyncio
import sys
import time
from pathlib import Path

from machineshop.api.job_view import job_view
from machineshop.config import parse_networks
from machineshop.control.deliverer import Deliverer
from machineshop.control.loop import Loop
from machineshop.control.sender import Sender
from machineshop.services.keyring import KeyRing
from machineshop.services.signing import SigningService
from machineshop.services.targets import Targets
from machineshop.services.webhooks import WebhookService
from machineshop.store.database import Database


async def main(url: str, keys: Path, ahead_seconds: float) -> None:
    def clock() -> float:
        return time.time() + ahead_seconds

    database = Database(url)
    database.start()
    targets = Targets(parse_networks(["127.0.0.0/8"]), loopback=False, own_port=lambda: 0)
    webhooks = WebhookService(database, SigningService(database, KeyRing(keys), clock), job_view, clock)
    deliverer = Deliverer(database, webhooks, Sender(targets), clock=clock)
    loop = Loop("deliver", deliverer.run_once, 0.05, clock)
    deliverer.on_room(loop.wake)
    loop.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
