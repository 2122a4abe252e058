"""The errors a user can mend: each message is one line that names what failed and what to do."""


class FlaxrnnError(Exception):
    """Base of all errors that the command line shows as one line, without a traceback."""

    exit_code = 2


class ConfigError(FlaxrnnError, ValueError):
    """A config field is unknown, of the wrong type or has an impossible value."""


class DataError(FlaxrnnError):
    """A corpus or text cannot be had, read or used."""


class WorkdirError(FlaxrnnError):
    """A working directory cannot be written, read or continued."""


class LostWorkdirError(WorkdirError):
    """The working directory was deleted while a run wrote to it."""

    exit_code = 1


class OutputError(FlaxrnnError):
    """Standard output cannot be written."""

    exit_code = 1


class DivergedError(FlaxrnnError):
    """The loss, or what a model predicts, is not finite."""

    exit_code = 3


class OutOfMemoryError(FlaxrnnError):
    """A device or the host has too little memory for the config."""

    exit_code = 1


class ProcessError(FlaxrnnError):
    """The processes of a run cannot find each other, or one of them was lost."""

    exit_code = 1
