"""A bundle: the project's files, its pinned requirements and its command, packed so that equal input is equal bytes."""
