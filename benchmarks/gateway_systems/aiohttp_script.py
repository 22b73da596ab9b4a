"""A plain proxy with aiohttp's server and client on uvloop: what one writes first. Usage: PORT REPLICA_PORT."""

import sys

import uvloop
from aiohttp import ClientSession, TCPConnector, web

NOT_PASSED = {"host", "connection", "transfer-encoding", "content-length", "keep-alive"}
session_key = web.AppKey("session", ClientSession)


async def forward(request: web.Request) -> web.StreamResponse:
    """Ask the replica the same, and pass on what it says as it says it."""
    headers = {name: value for name, value in request.headers.items() if name.lower() not in NOT_PASSED}
    body = request.content if request.can_read_body else None
    url = f"http://127.0.0.1:{sys.argv[2]}{request.raw_path}"
    async with request.app[session_key].request(request.method, url, headers=headers, data=body) as answer:
        response = web.StreamResponse(status=answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in NOT_PASSED:
                response.headers[name] = value
        response.content_length = answer.content_length
        await response.prepare(request)
        async for part in answer.content.iter_any():
            await response.write(part)
        return response


async def with_session(app: web.Application):  # type: ignore[no-untyped-def]
    """One pool of connections for all requests."""
    app[session_key] = ClientSession(connector=TCPConnector(limit=0), auto_decompress=False)
    yield
    await app[session_key].close()


def main() -> None:
    """Serve until SIGTERM."""
    app = web.Application(client_max_size=1 << 40)
    app.router.add_route("*", "/{tail:.*}", forward)
    app.cleanup_ctx.append(with_session)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
