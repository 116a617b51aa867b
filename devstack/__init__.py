"""What `make up` and the tests run on: real servers out of wheels, and a supervisor for the Procfile.

Production never imports this package.
"""


class DevstackError(Exception):
    """Something the person at the terminal can mend; the message is the whole story."""
