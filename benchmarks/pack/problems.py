"""What keeps a pack from being made."""


class PackError(Exception):
    """Something is missing, or the pack would be too large."""
