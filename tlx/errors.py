"""The few exceptions that a user can meet; each message says what to do next."""

import difflib
import errno
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


class TlxError(Exception):
    """Anything that tlx refuses on purpose; the command line prints it without a traceback."""


class ConfigError(TlxError):
    """A gin file or binding that cannot mean what its author meant."""


class DataError(TlxError):
    """A dataset that cannot be read, or that would make training meaningless.

    `findings` are what reading it brought to light until then (`tlx.data.dataset.Finding`).
    """

    def __init__(self, message: str, findings: Sequence[object] = ()):
        super().__init__(message)
        self.findings = tuple(findings)


class ModelError(TlxError):
    """A network, its weights or its freeze policy that do not fit together."""


class MisfitError(ModelError, ConfigError):
    """Parts that are each sound and do not go together, such as a policy for more layers than there are.

    A search, which may well try them together, goes on with other values.
    """


class TrainingError(TlxError):
    """A run that cannot go on, such as one whose loss is no longer finite."""


_ROOM = "make room there"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "allow larger files there (ulimit -f)",
    errno.EROFS: "make it writable, or choose another folder",
    errno.EACCES: "give yourself the right to it, or choose another folder",
    errno.EPERM: "give yourself the right to it, or choose another folder",
    errno.EIO: "see whether that disk is sound",
    errno.ENOTCONN: "connect that disk again",
    errno.ESTALE: "connect that disk again",
}


def of_system(error: OSError, where: object = None) -> str:
    """Return what the system has against us, for people: the file (or else `where`), what is wrong, and what to do."""
    place = error.filename if error.filename is not None else where
    remedy = _REMEDIES.get(error.errno)
    what = f"{error.strerror or error}" + (f"; {remedy}, and give the same command again" if remedy else "")
    return f"{place}: {what}" if place is not None else what


@dataclass(frozen=True)
class Bounds:
    """The numbers that a setting may be, from `low` to `high`; above and below these where they are `open`.

    Of a pair both may be, the smaller first. None, where a setting may be None, is within all bounds.
    """

    low: float
    high: float = math.inf
    open: tuple[bool, bool] = (False, False)

    def __contains__(self, value: float | Sequence[float] | None) -> bool:
        if isinstance(value, Sequence):
            return list(value) == sorted(value) and all(one in self for one in value)
        if value is None:
            return True
        above = value > self.low if self.open[0] else value >= self.low
        return above and (value < self.high if self.open[1] else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"above {self.low:g}" if self.open[0] else f"{self.low:g} or more"
        if not any(self.open):
            return f"{self.low:g} to {self.high:g}"
        low, high = ("above" if self.open[0] else "at least"), ("below" if self.open[1] else "at most")
        return f"{low} {self.low:g}, {high} {self.high:g}"


def above(low: float, most: float = math.inf, below: float | None = None) -> Bounds:
    """Return the bounds of what is greater than `low`, and no more than `most`, or less than `below`."""
    return Bounds(low, most if below is None else below, (True, below is not None))


def at_least(low: float, most: float = math.inf, below: float | None = None) -> Bounds:
    """Return the bounds of what is no less than `low`, and no more than `most`, or less than `below`."""
    return Bounds(low, most if below is None else below, (False, below is not None))


def refuse_values(owner: str, settings: object, sound: Mapping[str, Bounds | bool | str]) -> None:
    """Raise a ConfigError that names the first setting of `owner` whose value is not sound, and what it may be.

    `sound` gives bounds for each, or whether it is sound, with a text that says what is expected in place of False.
    """
    for name, fine in sound.items():
        value, words = getattr(settings, name), str(fine or "")
        if value in fine if isinstance(fine, Bounds) else fine is True:
            continue
        pair = "the smaller number first, " if isinstance(fine, Bounds) and isinstance(value, Sequence) else ""
        expected = f": expected {pair}{words}" if words else ""
        raise ConfigError(f"{owner}.{name} = {value!r} makes no sense{expected}; see `tlx list {owner}`")


def suggest(name: str, options: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the option closest to `name`, or "" where none is close."""
    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""
