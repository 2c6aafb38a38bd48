"""The two kinds of error that a command reports as one line instead of a traceback."""


class InputError(ValueError):
    """Something the caller gave is wrong: a file, a name, a setting.

    The message is one line that says what is wrong, where it is and what to do about it.
    A command prints it and exits with status 2.
    """


class Failure(RuntimeError):
    """The input was fine but the work could not be finished, such as a gate that was not passed.

    The message is one line. A command prints it and exits with status 1.
    """
