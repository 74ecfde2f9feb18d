"""Errors that reach a person; every message ends with what to do.

MelodiError
├── ConfigError       a setting or a file of the user's is wrong
├── StoreError        the database cannot be opened, read or written
├── PromptSetError    a prompt file cannot be used
├── BackendError      a backend is unknown, away, or refused
├── CommandError      a command that was to be measured cannot be started
└── OutputError       what is to be shown cannot be written
CutShort              an answer ends without its proper end, on purpose
"""


class MelodiError(Exception):
    """The root of what MELODI raises on purpose."""


class ConfigError(MelodiError):
    """A setting or a file of the user's is wrong."""


class StoreError(MelodiError):
    """The database cannot be opened, read or written."""


class PromptSetError(MelodiError):
    """A prompt file cannot be used."""


class BackendError(MelodiError):
    """A backend is unknown, away, or refused the request."""


class CommandError(MelodiError):
    """A command that was to be measured cannot be started; `exit_code` is what a shell gives."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OutputError(MelodiError):
    """What is to be shown cannot be written."""


class CutShort(Exception):
    """Ends an answer without its proper end, on purpose: the server need not explain it."""
