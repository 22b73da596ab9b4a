"""Volumes on this machine: brought here once for all replicas that mount them, and kept within a bound."""
