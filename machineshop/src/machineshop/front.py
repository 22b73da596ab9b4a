"""The outermost ASGI application."""

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send


class Front:
    """What a request meets first.

    A path with two version prefixes loses one: people set the base URL with `/v1`, and some clients need that. The
    routes without a placeholder, which are those that every job passes, are found in one look; Starlette's router,
    which tries one route after another, has the rest. The gateway's requests are known by the beginning of their path.

    Args:
        application: Has all routes.
        gateway: The one of them that stands for all paths below a deployment's name, where there is one.
    """

    def __init__(self, application: Starlette, gateway: Route | None = None) -> None:
        self.application = application
        self._gateway = gateway
        self._gateway_prefix = "" if gateway is None else gateway.path.partition("{")[0]
        self._exact: dict[tuple[str, str], ASGIApp] = {
            (method, route.path): route.app
            for route in reversed(application.routes)
            if isinstance(route, Route) and "{" not in route.path
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find who answers."""
        app: ASGIApp = self.application
        if scope["type"] == "http":
            if scope["path"].startswith(("/v1/v1/", "/v1/v3/", "/v1/internal/")):
                raw = scope.get("raw_path") or scope["path"].encode()
                scope = {**scope, "path": scope["path"][3:], "raw_path": raw[3:]}
            app = self._exact.get((scope["method"], scope["path"])) or self._gateway_app(scope) or app
        await app(scope, receive, send)

    def _gateway_app(self, scope: Scope) -> ASGIApp | None:
        """The gateway, where its route would have this request."""
        route, path = self._gateway, scope["path"]
        if route is None or not path.startswith(self._gateway_prefix):
            return None
        deployment, slash, _ = path[len(self._gateway_prefix) :].partition("/")
        return route.app if deployment and slash and scope["method"] in (route.methods or ()) else None
