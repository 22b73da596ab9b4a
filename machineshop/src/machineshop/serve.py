"""Serving until somebody says that it is enough: the signals, and what each of them means."""

import asyncio
import faulthandler
import gc
import os
import signal
from collections.abc import Callable

from machineshop.app import STOP_GRACE_SECONDS, Platform
from machineshop.config import Settings


async def run(settings: Settings, announce: Callable[[Platform], None], say: Callable[[str], None]) -> None:
    """Serve until a signal.

    Ctrl-C and a terminal that closes (SIGHUP) come from a person who is done: they end the replicas too. SIGTERM comes
    from a service manager, and leaves them to the next start. A second signal ends the server at once.

    Args:
        settings: What was asked for.
        announce: Called once the platform serves.
        say: Called with a line for the person at the terminal.
    """
    faulthandler.enable()  # a crash of the interpreter says where, too
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # one that comes during the start waits for its end
        loop.add_signal_handler(number, received.put_nowait, number)
    platform = Platform(settings)
    await platform.start()
    gc.collect()
    gc.freeze()  # what the start made stays; looking through it again and again makes answers late
    announce(platform)
    end_replicas = await received.get() is not signal.SIGTERM
    if end_replicas and (running := await platform.running_replicas()):
        replicas = "1 replica finishes" if running == 1 else f"{running} replicas finish"
        say(f"Stopping: {replicas} what is in hand, {STOP_GRACE_SECONDS:.0f} s at most. Ctrl-C again leaves them.")
    stopping = asyncio.create_task(platform.stop(end_replicas=end_replicas))
    impatient = asyncio.create_task(received.get())
    await asyncio.wait([stopping, impatient], return_when=asyncio.FIRST_COMPLETED)
    impatient.cancel()
    if stopping.done():
        stopping.result()
    else:
        say("Stopped at once. What still runs is adopted by the next start.")
        os._exit(130)
