"""Why a benchmark could not run. A missed bar is not an error: it is printed."""


class BenchmarkError(Exception):
    """The benchmark cannot be run here; the message says what is missing or what broke, and how to mend it."""
