"""`timeout(seconds)`, for `async with`.

`asyncio.wait_for` is no substitute: before Python 3.12 it drops a cancellation that comes at the moment in which what
it waits for is ready, and whoever cancelled waits for ever.
"""

import sys

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout  # aiohttp brings it there

__all__ = ["timeout"]
