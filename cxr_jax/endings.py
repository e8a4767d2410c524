"""How a command ends: its exit codes, and the one line about a full disk."""

import errno

DONE, FAILED, WRONG_INPUT, STOPPED = 0, 1, 2, 75
# What the system says of a disk, a quota or a file that may not grow further.
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def full_disk(error: OSError) -> str | None:
    """One line for the user whose disk is full; None for any other error."""
    if error.errno not in FULL:
        return None
    return f"the disk is full ({error}); free space and run again"
