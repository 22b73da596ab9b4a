"""A run: the jobs of a file, submitted in portions, watched until they have ended, their results written in order."""
