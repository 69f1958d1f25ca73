"""The one exception that stands for a user's mistake."""


class InputError(ValueError):
    """A user's mistake, told in one line: the fault, in which file, what to do.

    The command line prints the message without a traceback and exits with code 2.
    """
