"""Errors a user can act on. Imports no JAX, so that readers of films stay light.

Every message says what was given, what is allowed and what to do, in one line.
``endings.tell`` turns each of these into an exit code; anything else is a fault of ours
and keeps its traceback.
"""


class UserError(Exception):
    """The input is wrong, not the program. ``str(error)`` is one line for the user."""


class ConfigError(UserError):
    """A config key, variant, type or value that cannot be used; the message names the key."""


class DataError(UserError):
    """A dataset, label table, split or record file that cannot be used as it is."""


class CheckpointError(UserError):
    """A checkpoint that is damaged, or belongs to another config."""


class InputRejected(UserError):
    """One film that was refused.

    Args:
        code: short machine-readable reason, such as ``truncated`` or ``colour``.
        hint: one sentence: what was found, what is allowed, what to do.
    """

    def __init__(self, code: str, hint: str):
        super().__init__(f"{code}: {hint}")
        self.code = code
        self.hint = hint
