"""The route that says why a deployment has as many replicas as it has."""

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from machineshop.api.described import deployments as described
from machineshop.api.durations import parse_number
from machineshop.api.endpoint import Api, Call, iso
from machineshop.http import json_response
from machineshop.models import ScalingDecision
from machineshop.services.scaling import ScalingService

DEFAULT_DECISIONS = 20
MAX_DECISIONS = 200


def routes(api: Api, scaling: ScalingService) -> list[Route]:
    """All routes of this module: the server that runs the loops can answer them."""
    pages = _Scaling(scaling)
    return [api.route("GET", "/v1/deployments/{deployment}/scaling", pages.explain, operation=described.SCALING)]


class _Scaling:
    """The handlers."""

    def __init__(self, scaling: ScalingService) -> None:
        self._scaling = scaling

    async def explain(self, call: Call) -> Response:
        limit = parse_number(call.query.get("limit", str(DEFAULT_DECISIONS)), "limit", least=1, most=MAX_DECISIONS)
        found = await self._scaling.explain(call.project_id, call.path["deployment"], limit)
        config = found.deployment.config
        return json_response(
            {
                "object": "scaling",
                "name": found.deployment.name,
                "desired_replicas": found.deployment.replicas,
                "min_replicas": config.min_replicas,
                "max_replicas": config.max_replicas,
                "autoscaling": config.autoscaling,
                "now": None if found.latest is None else _view(found.latest),
                "decisions": [_view(decision) for decision in found.decisions],
            }
        )


def _view(decision: ScalingDecision) -> dict[str, Any]:
    return {
        "at": iso(decision.at),
        "before": decision.before,
        "replicas": decision.replicas,
        "reason": decision.reason,
        "message": decision.message,
        "wanted": decision.wanted,
        **decision.inputs,
    }
