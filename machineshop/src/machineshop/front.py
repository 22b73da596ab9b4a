"""The outermost ASGI application."""

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from machineshop.errors import MethodNotAllowed
from machineshop.http import error_response


def not_allowed(application: Starlette, scope: Scope) -> Response:
    """The answer to a method that a path does not have."""
    path = scope["path"]
    routes = [route for route in application.routes if isinstance(route, Route)]
    found = [route for route in routes if route.path == path] or [
        route for route in routes if route.matches(scope)[0] is not Match.NONE
    ]
    allowed = sorted({method for route in found for method in route.methods or ()})
    return error_response(MethodNotAllowed(method=scope["method"], path=path[:256], allowed=", ".join(allowed)))


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
        # They are no names of deployments or files either, whatever the method.
        self._exact_paths = frozenset(path for _, path in self._exact)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find who answers."""
        app: ASGIApp = self.application
        if scope["type"] == "http":
            if scope["path"].startswith(("/v1/v1/", "/v1/v3/", "/v1/internal/")):
                raw = scope.get("raw_path") or scope["path"].encode()
                scope = {**scope, "path": scope["path"][3:], "raw_path": raw[3:]}
            app = self._exact.get((scope["method"], scope["path"])) or self._gateway_app(scope) or app
            if app is self.application and scope["path"] in self._exact_paths:
                app = not_allowed(self.application, scope)
        await app(scope, receive, send)

    def _gateway_app(self, scope: Scope) -> ASGIApp | None:
        """The gateway, where its route would have this request."""
        route, path = self._gateway, scope["path"]
        if route is None or not path.startswith(self._gateway_prefix):
            return None
        deployment, slash, _ = path[len(self._gateway_prefix) :].partition("/")
        return route.app if deployment and slash and scope["method"] in (route.methods or ()) else None
