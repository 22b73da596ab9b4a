"""The project's config: found, read and checked once, into frozen values."""
