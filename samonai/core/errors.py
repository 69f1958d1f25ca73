"""InputError: the exception for a user's mistake."""


class InputError(ValueError):
    """A user's mistake, described in one line: the fault, the file, what to do.

    The command line prints the message without a traceback and exits with code 2. Messages may
    quote foreign files, so characters that are not printable (line ends, control sequences of
    terminals, broken text) become a space or a question mark.
    """

    def __init__(self, message: object = "") -> None:
        text = str(message)
        if not text.isprintable():
            text = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)
        super().__init__(text)
