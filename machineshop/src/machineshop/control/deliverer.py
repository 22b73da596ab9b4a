"""Sends what lies in the outbox of webhooks, and sends it again until it is taken or given up.

Place in the flow: the transaction that ends a job puts a row into the outbox; this loop counts a try of it in the
store, sends it, and writes down what came of that. A try that a crash has cut off is followed by the next one once its
claim on the row has run out.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from machineshop.control.sender import Answer, Sender
from machineshop.errors import Unavailable
from machineshop.services.webhooks import WebhookService
from machineshop.store import webhooks as store
from machineshop.store.database import Database
from machineshop.store.webhooks import DueWebhook, Send, WebhookKey

log = logging.getLogger(__name__)

MAX_SENDS = 20
# One slow receiver does not hold up those of others.
MAX_SENDS_PER_HOST = 4
# No other send of the same row begins within this: far longer than a send can take.
CLAIM_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 5.0
MAX_PAUSE_SECONDS = 3600.0
# A pause is up to this much shorter or longer, so that what failed together does not come back together.
JITTER = 0.2
# With these pauses the last try is a day after the first.
MAX_TRIES = 34
# What is on its way when the server stops may arrive within this.
CLOSE_GRACE_SECONDS = 2.0


class Deliverer:
    """The loop's pass, and the sends that are on their way between passes."""

    def __init__(
        self,
        database: Database,
        webhooks: WebhookService,
        sender: Sender,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._webhooks = webhooks
        self._sender = sender
        self._clock = clock
        self._chance = chance
        self._sends: dict[WebhookKey, Send] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_room: Callable[[], None] | None = None

    def on_room(self, listener: Callable[[], None]) -> None:
        """Have `listener` called whenever a send has ended, so that another one may begin."""
        self._on_room = listener

    async def run_once(self, now: float) -> int:
        """Begin to send what is due by now, as far as there is room; returns how many sends have begun."""
        begun = 0
        while (room := MAX_SENDS - len(self._sends)) > 0:
            load = Counter(send.host for send in self._sends.values())
            full = {host for host, sends in load.items() if sends >= MAX_SENDS_PER_HOST}
            due = await self._database.read(store.due, now, full, MAX_SENDS)
            keys = chosen(due, self._sends.keys(), load, room)
            # The time that a send may take counts from before its claim: one that was halted in between is not made.
            began = asyncio.get_running_loop().time()
            sends = await self._database.write(store.take, keys, now, now + CLAIM_SECONDS) if keys else []
            if not sends:
                break
            for send in sends:
                self._begin(send, began)
            begun += len(sends)
        return begun

    async def settled(self) -> None:
        """Return once nothing is on its way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """End; what does not arrive in time is sent again after the next start."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_GRACE_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sender.close()

    def _begin(self, send: Send, began: float) -> None:
        self._sends[send.key] = send
        task = asyncio.create_task(self._run(send, began), name=f"webhook-{send.key.job_id}")
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(send, task))

    def _ended(self, send: Send, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        del self._sends[send.key]
        if self._on_room is not None:
            self._on_room()

    async def _run(self, send: Send, began: float) -> None:
        """One try from its message to its row; where the store is away, the claim runs out and the next try follows."""
        try:
            await self._settle(send, await self._send(send, began))
        except Unavailable as error:
            log.warning("webhook.interrupted job=%s try=%d error=%s", send.key.job_id, send.number, error)
        except Exception:
            log.exception("webhook.defect job=%s try=%d", send.key.job_id, send.number)

    async def _send(self, send: Send, began: float) -> Answer:
        try:
            message = await self._webhooks.message(send)
        except Unavailable:
            raise
        except Exception:
            log.exception("webhook.defect job=%s try=%d", send.key.job_id, send.number)
            return Answer(None, "It could not be written: a defect of the platform, whose log says more.")
        if message is None:
            return Answer(None, "The job has been removed.")
        return await self._sender.send(send.url, message.headers, message.body, began)

    async def _settle(self, send: Send, answer: Answer) -> None:
        now = self._clock()
        if answer.error is None:
            written = await self._database.write(store.deliver, send, now)
            outcome = "delivered"
        else:
            over = answer.gone or send.number >= MAX_TRIES
            next_try_at = None if over else now + pause_seconds(send.number, self._chance())
            written = await self._database.write(store.postpone, send, next_try_at, answer.error)
            outcome = "given_up" if over else "postponed"
        log.info(
            "webhook.%s job=%s attempt=%d try=%d status=%s",
            outcome if written else "overtaken",
            send.key.job_id,
            send.key.attempt,
            send.number,
            answer.status,
        )


def chosen(
    due: Sequence[DueWebhook], sending: Collection[WebhookKey], load: Mapping[str, int], room: int
) -> list[WebhookKey]:
    """Those of the due ones that may be sent now.

    Arguments:
        due: What waits, the longest waiting first.
        sending: What is on its way.
        load: How many of those go to each host.
        room: How many more may be on their way.
    """
    hosts = Counter(load)
    keys: list[WebhookKey] = []
    for webhook in due:
        if len(keys) < room and webhook.key not in sending and hosts[webhook.host] < MAX_SENDS_PER_HOST:
            hosts[webhook.host] += 1
            keys.append(webhook.key)
    return keys


def pause_seconds(tries: int, chance: float) -> float:
    """How long to wait after so many tries; `chance` is from 0 to 1."""
    pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 30), MAX_PAUSE_SECONDS)
    return pause * (1 + JITTER * (2 * chance - 1))
