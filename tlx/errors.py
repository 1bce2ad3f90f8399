"""The few exceptions that a user can meet; each message says what to do next."""

import difflib
import errno
from collections.abc import Iterable, Mapping, Sequence


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


def refuse_values(owner: str, settings: object, sound: Mapping[str, bool]) -> None:
    """Raise a ConfigError that names the first setting of `owner` whose value is not sound."""
    for name, fine in sound.items():
        if not fine:
            raise ConfigError(f"{owner}.{name} = {getattr(settings, name)!r} makes no sense; see `tlx list {owner}`")


def suggest(name: str, options: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the option closest to `name`, or "" where none is close."""
    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""
