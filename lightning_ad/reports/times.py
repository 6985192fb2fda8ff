"""Durations and moments in words."""

import time


def spoken(seconds: float) -> str:
    """A duration for people, in two units at most: 48 s, 2 min 40 s, 14 min, 3 h 05 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def clock(moment: float) -> str:
    """A moment (`time.time`) as local time of day, with the date unless it is today."""
    there, here = time.localtime(moment), time.localtime(time.time())
    return time.strftime("%H:%M" if there[:3] == here[:3] else "%d %b %Y %H:%M", there)


def at_and_in(moment: float) -> str:
    """A moment (`time.time`) to come: 14:05, in 5 min 30 s."""
    return f"{clock(moment)}, in {spoken(moment - time.time())}"
