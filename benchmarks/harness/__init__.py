"""What every benchmark needs: children that are started and stopped, servers of its own, and the report."""
