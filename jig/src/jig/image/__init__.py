"""Container images: a Dockerfile out of the config, and what builds, runs and pushes them."""
