"""`make bench`: what requests, lists and deletions cost, each beside a baseline of the same run.

Starts the processes of the Procfile on embedded servers in a temporary directory. The product never imports it.
"""


class OutOfTime(Exception):
    """A measurement has used up its time."""


class NotMeasured(Exception):
    """A measurement has no result; the message says why."""
