"""The domain's operations; each transition is one method."""
