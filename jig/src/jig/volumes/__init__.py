"""Volumes: a folder's files on the platform, in versions that never change."""
