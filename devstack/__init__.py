"""The stack of `make up` and the tests: real servers from wheels, and a supervisor for the Procfile.

Production never imports this package.
"""


class DevstackError(Exception):
    """An error that the user at the terminal can correct; the message says how."""
