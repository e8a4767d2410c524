"""How a command ends: its exit codes, the line about a full disk, signals outside a run."""

import errno
import os
import signal
import sys

DONE, FAILED, WRONG_INPUT, STOPPED = 0, 1, 2, 75
SIGNALS = (signal.SIGTERM, signal.SIGINT)
GO_ON = "stopped; run the same command again to go on"
# What the system says of a disk, a quota or a file that may not grow further.
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def full_disk(error: OSError) -> str | None:
    """One line for the user whose disk is full; None for any other error."""
    if error.errno not in FULL:
        return None
    return f"the disk is full ({error}); free space and run again"


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
