"""Errors that end a command. The message is one sentence: what was expected, what was found, where."""


class AssayError(Exception):
    exit_code = 3


class UsageError(AssayError):
    """The call itself is wrong: unknown option, name or combination."""

    exit_code = 2


class InputError(AssayError):
    """Nothing could be judged: file, schema, hash, disk, device or an unsuitable release of a library."""

    exit_code = 3
