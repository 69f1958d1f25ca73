"""InputError: the exception for a user's mistake."""


class InputError(ValueError):
    """A user's mistake, described in one line: the fault, the file, what to do.

    The command line prints the message without a traceback and exits with code 2.
    """
