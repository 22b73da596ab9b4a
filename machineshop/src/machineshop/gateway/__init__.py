"""Requests to replicas, forwarded as they come."""
