"""The two kinds of error that a command reports as one line instead of a traceback, and that line."""


class InputError(ValueError):
    """Something the caller gave is wrong: a file, a name, a setting.

    The message is one line that says what is wrong, where it is and what to do about it.
    A command prints it and exits with status 2.
    """


class Failure(RuntimeError):
    """The input was fine but the work could not be finished, such as a gate that was not passed.

    The message is one line. A command prints it and exits with status 1.
    """


def one_line(error: BaseException, longest: int | None = 200) -> str:
    """An error's message without line breaks, cut where it gets long (``None``: nowhere); else its type."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if longest is None or len(text) <= longest else text[: longest - 1] + "…"
