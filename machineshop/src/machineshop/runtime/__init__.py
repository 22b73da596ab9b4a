"""Engines that run replicas, behind one protocol."""
