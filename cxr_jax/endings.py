"""How a command ends: its exit codes, the line about a full disk, signals outside a run."""

import errno
import os
import signal
import sys

from cxr_jax.errors import CheckpointError, UserError

DONE, FAILED, WRONG_INPUT, STOPPED = 0, 1, 2, 75
SIGNALS = (signal.SIGTERM, signal.SIGINT)
GO_ON = "stopped; run the same command again to go on"
# What the system says of a disk, a quota or a file that may not grow further.
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    """Whether a disk, a quota or a file may not grow further."""
    return error.errno in FULL


def tell(error: UserError | OSError) -> int:
    """Says in one line on stderr what the user can mend.

    Returns:
        The exit code.

    Raises:
        OSError: the error itself, where the disk is not full: a fault of ours.
    """
    if isinstance(error, CheckpointError):
        return fail(error, FAILED)
    if isinstance(error, UserError):
        return fail(error, WRONG_INPUT)
    if is_full(error):
        return fail(f"the disk is full ({error}); free space and run again", FAILED)
    raise error


def fail(line: object, code: int) -> int:
    """One line on stderr, whatever the breaks in it; gives the code back."""
    print(f"error: {' '.join(str(line).split())}", file=sys.stderr)
    return code


def leave_on_signals(line: str = "") -> None:
    """From here on a signal ends the process at once, with code 75: nothing is unsaved.

    Args:
        line: what to say on stderr.
    """

    def leave(*_: object) -> None:
        if line:
            # A bar may stand there. The stream itself may be in use: a signal waits for
            # nobody.
            start = "\n" if sys.stderr.isatty() else ""
            os.write(2, f"{start}{line}\n".encode())
        os._exit(STOPPED)

    for number in SIGNALS:
        signal.signal(number, leave)


def ignore_signals() -> None:
    """The outcome is settled: a late signal would make a finished run look killed.

    Python takes its handlers back while it shuts down; this one stays.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
