"""Waiting is for a condition, with a deadline; nothing in the rig sleeps for its own sake."""
import time


class Late(Exception):
    """A condition did not come true in time; the message says which, and what was seen last."""


def until(what, condition, seconds, every=0.1, during=None):
    """The first truthy value of `condition()`. Exceptions of the network count as "not yet". `during()` may raise to give up early."""
    end, last = time.monotonic() + seconds, None
    while True:
        try:
            found = condition()
            if found:
                return found
            last = found
        except (OSError, EOFError) as error:
            last = error
        if during:
            during()
        if time.monotonic() > end:
            raise Late(f"{what}: not within {seconds} s (last seen: {last!r})")
        time.sleep(every)
