"""How many files and connections this process may have open."""

import logging
import resource

log = logging.getLogger(__name__)

# More than this serves nobody on one machine, and programs that walk through all descriptors get slow with it.
MAX_OPEN_FILES = 1 << 20


def raise_open_files_limit() -> int:
    """Let this process open as many files and connections as it may.

    Returns:
        The limit from now on.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:  # some systems allow less than they say
            log.warning("the limit of open files stays at %s: %s", soft, error)
            return soft
        return wanted
    return soft
