"""The docker runtime: replicas are containers of a Docker Engine, or of what speaks its API, such as Podman."""
