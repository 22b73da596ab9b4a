"""The commands: each reads its options and tells a story with the parts beside this package."""
