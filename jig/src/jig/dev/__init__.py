"""`jig dev`: a throw-away platform, its keeper, and the watch over a project's files."""
