"""Serving until somebody says that it is enough: the signals, and what each of them means."""

import asyncio
import faulthandler
import gc
import os
import signal
from collections.abc import Callable

from machineshop.app import STOP_GRACE_SECONDS, Platform
from machineshop.config import Settings

# What a start that is given up may take to let go of what it has under way.
GIVE_UP_SECONDS = 0.5
INTERRUPTED = 130


async def run(settings: Settings, announce: Callable[[Platform], None], say: Callable[[str], None]) -> None:
    """Serve until a signal.

    Ctrl-C and a terminal that closes (SIGHUP) come from a person who is done: they end the replicas too. SIGTERM comes
    from a service manager, and leaves them to the next start. A second signal ends the server at once. One that comes
    during the start gives that up, and replicas of an earlier run are left as they are.

    Args:
        settings: What was asked for.
        announce: Called once the platform serves.
        say: Called with a line for the person at the terminal.
    """
    faulthandler.enable()  # a crash of the interpreter says where, too
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, received.put_nowait, number)
    platform = Platform(settings)
    first = asyncio.create_task(received.get())
    await _start(platform, first, received, say)
    gc.collect()
    gc.freeze()  # what the start made stays; looking through it again and again makes answers late
    announce(platform)
    end_replicas = await first is not signal.SIGTERM
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
        os._exit(INTERRUPTED)


async def _start(
    platform: Platform,
    first: asyncio.Task[signal.Signals],
    received: asyncio.Queue[signal.Signals],
    say: Callable[[str], None],
) -> None:
    """Start the platform; where the first signal comes before it serves, give that up and end the process.

    Nothing has been promised to anybody yet, so it is left as a crash would leave it, which the next start is made for.
    """
    starting = asyncio.create_task(platform.start())
    await asyncio.wait([starting, first], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        impatient = asyncio.create_task(received.get())
        await asyncio.wait([starting, impatient], timeout=GIVE_UP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        say("Stopped before it was ready. Replicas of an earlier run are left as they are.")
        os._exit(0 if await first is signal.SIGTERM else INTERRUPTED)
    starting.result()
