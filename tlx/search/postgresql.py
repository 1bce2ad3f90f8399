"""A PostgreSQL server that keeps the studies of many hosts: reached, outlasted when it is away, its password untold."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from tlx.errors import ConfigError, TlxError

# A server may be away for so long, in seconds, before a host gives up on it.
_PATIENCE = 300.0
_PAUSE = 0.5
# What a session tells the server, so that a host that falls asleep, or off the net, in the midst of something holds
# up the others for a minute at most, and so that all hosts write the same time of day.
_OPTIONS = (
    "-c TimeZone=UTC -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    " -c idle_in_transaction_session_timeout=60000"
)
# Of tables that are being made, whoever makes them; and, with a hash, of one study.
_TABLES = 0x746C78


class Server:
    """The database that an address such as `postgresql://user:password@host/database` names.

    What is shown or written of it is `str(server)`, which holds neither user nor password.

    Raises:
      ConfigError: the address makes no sense, a package is missing, or the server does not answer.
    """

    def __init__(self, address: str):
        # Optuna needs a third of a second, and the driver is an extra: who searches on one host waits for neither.
        import sqlalchemy  # noqa: PLC0415

        try:
            import psycopg  # noqa: PLC0415
        except ImportError:
            raise ConfigError(
                "--storage needs the package psycopg; install it with: pip install 'tlx[postgresql]'"
            ) from None
        wanted = (
            "--storage: expected postgresql://USER:PASSWORD@HOST/DATABASE (the password may be in PGPASSWORD instead)"
        )
        try:
            url = sqlalchemy.make_url(address)
        except (sqlalchemy.exc.ArgumentError, ValueError):
            raise ConfigError(wanted) from None
        if url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
            raise ConfigError(f"{wanted}, not {url.drivername}://...")
        if not url.database or "@" in (url.host or "") or "password" in url.query:
            raise ConfigError(f"{wanted}; write '@', ':' and '/' in a password as %40, %3A and %2F")
        url = url.set(drivername="postgresql+psycopg")
        _, self._arguments = url.get_dialect()().create_connect_args(url)
        options = f"{_OPTIONS} {self._arguments.get('options', '')}".strip()
        self._arguments |= {"options": options, "connect_timeout": self._arguments.get("connect_timeout", 10)}
        self._password, self._open = url.password, psycopg.connect
        shown = sqlalchemy.URL.create("postgresql", host=url.host, port=url.port, database=url.database)
        self._shown = shown.render_as_string()
        self._failures = (psycopg.Error, sqlalchemy.exc.SQLAlchemyError)
        self.stopping = threading.Event()
        try:
            self._open(**self._arguments).close()
        except psycopg.OperationalError as error:
            raise ConfigError(f"{self} does not answer: {self._hidden(error)}") from None

    def __str__(self) -> str:
        return self._shown

    def storage(self, kept_open: bool = True) -> Any:
        """Return Optuna's storage in this database, its tables made if they are not there.

        Its connections are kept for `engine.dispose()` to close, or else closed after each use.
        """
        import optuna  # noqa: PLC0415
        from sqlalchemy.pool import NullPool  # noqa: PLC0415

        with self._open(**self._arguments) as connection:
            # Two hosts that begin at once would both make the tables.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_TABLES])
            # The address itself is kept from Optuna, which might tell it.
            more = {"creator": self._connect, **({"pool_pre_ping": True} if kept_open else {"poolclass": NullPool})}
            return optuna.storages.RDBStorage("postgresql+psycopg://", engine_kwargs=more)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Turn what the database has against us into a message for people."""
        import optuna  # noqa: PLC0415

        try:
            yield
        except (*self._failures, optuna.exceptions.StorageInternalError) as error:
            cause = error.__cause__ or error
            raise TlxError(
                f"{self} cannot be worked with: {self._hidden(cause)}; the same command goes on from here"
            ) from None

    def _connect(self) -> Any:
        """Connect; where the server is away for a while, such as for an update, wait for it."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._open(**self._arguments)
            except self._failures:
                if self.stopping.is_set() or time.monotonic() > until:
                    raise
            self.stopping.wait(_PAUSE)

    def _hidden(self, error: BaseException) -> str:
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return text.replace(self._password, "***") if self._password else text
