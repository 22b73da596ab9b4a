"""How configurations of deployments are written down."""

import msgspec

from machineshop.models import DeploymentConfig

# Announced when a deployment was created, changed or deleted.
DEPLOYMENTS = "deployments"
_CONFIG = msgspec.json.Decoder(DeploymentConfig)


def encode_config(config: DeploymentConfig) -> str:
    """A configuration as JSON."""
    return msgspec.json.encode(config).decode()


def decode_config(text: str) -> DeploymentConfig:
    """A configuration that this version or an earlier one has written."""
    return _CONFIG.decode(text)
