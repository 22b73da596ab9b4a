"""What the routes say of themselves, by resource: the types of their answers, and an `Operation` for each.

A field without a default is always there; one that may be `UNSET` is left out where it says nothing. The handlers
build their answers as plain dictionaries, since some of them are on every job's way; the test of the description holds
what they answer against these types, and more fields than these are a failure there.
"""
