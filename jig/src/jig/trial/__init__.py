"""Jobs on this machine, without a platform: the environment, the worker's process, and what comes of the jobs."""
