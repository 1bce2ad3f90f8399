"""What people see of a run or a search while it goes on: progress with time left, news, and tables."""

import threading
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from tlx.evaluate.evaluator import headline, in_words
from tlx.events import Answer, Listener, Look
from tlx.report.text import amount

# In a file or pipe it is silent for so many seconds at most.
_SILENT = 30.0


class Terminal(Listener):
    """Follows a run or a search on a terminal, live; in a file or pipe it prints a line for each event.

    There, where nothing happens for `silent` seconds, it says how far things are. Use it as a context manager.
    """

    def __init__(self, console: Console | None = None, silent: float = _SILENT):
        self.console = console or Console()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            # Trials take minutes; the speed of the last half minute, as is usual, would be nothing.
            speed_estimate_period=3600.0,
        )
        self._tasks: dict[str, TaskID] = {}
        self._table: Table | None = None
        self._printed: set[int] = set()
        self._began = self._heard = time.monotonic()
        self._silent, self._over = silent, threading.Event()
        self._beat = threading.Thread(target=self._break_silence, daemon=True)
        self._live = Live(self._render(), console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Terminal":
        self._live.start()
        if not self.console.is_terminal:
            self._beat.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        if self._beat.ident:
            self._beat.join()
        # What stays on the screen is the table; bars of finished work say nothing any more.
        self._tasks.clear()
        self._live.stop()
        if self._table is not None and self.console.is_terminal:
            self.console.print(self._table)

    def say(self, message: str) -> None:
        """Print one line of news above whatever is live."""
        self._print(Text(message, style="dim"))

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show how far a piece of work is, and how long it will still take."""
        if what not in self._tasks or done < self._bars.tasks[self._index(what)].completed:
            self._drop(what)
            self._tasks[what] = self._bars.add_task(what, total=total, note=note)
        self._bars.update(self._tasks[what], completed=done, total=total, note=note)
        if done >= total:
            self._drop(what)

    def evaluated(self, look: Look) -> Answer:
        """Print the metrics of a look at the validation split; every run goes on."""
        self._print(f"  look {look.number}/{look.of}: {in_words(look.metrics)}")
        return "continue"

    def trials(self, rows: list[dict[str, Any]], wanted: int) -> None:
        """Show the trials of a search, the best one marked, with the time that the rest will take."""
        self._table = trials_table(rows)
        finished = [row for row in rows if row["state"] in ("complete", "pruned")]
        self.progress_of_search(len(finished) + sum(row.get("share", 0.0) for row in rows), wanted)
        self._live.update(self._render())
        if not self.console.is_terminal:
            # By number, for trials end in another order than they began where several go on at once.
            for row in finished:
                if row["trial"] not in self._printed:
                    self._print(Text(_line(row)))
            self._printed = {row["trial"] for row in finished}

    def progress_of_search(self, finished: float, wanted: int) -> None:
        """Show how many trials are done, parts of them included; the bar stays while trials come and go."""
        if "search" not in self._tasks:
            self._tasks["search"] = self._bars.add_task("search", total=wanted, note="trials")
        self._bars.update(self._tasks["search"], completed=finished)

    def _print(self, what: Any) -> None:
        self._heard = time.monotonic()
        self.console.print(what, soft_wrap=True)

    def _break_silence(self) -> None:
        while not self._over.wait(max(0.0, self._heard + self._silent - time.monotonic())):
            if time.monotonic() >= self._heard + self._silent:
                self._print(Text(self._summary(), style="dim"))

    def _summary(self) -> str:
        """Return how long this has taken, how far each piece of work is, and how long it will still take."""
        parts = []
        for task in self._bars.tasks:
            left = f", about {_time(task.time_remaining)} left" if task.time_remaining else ""
            note = f", {task.fields['note']}" if task.fields["note"] not in ("", "trials") else ""
            parts.append(f"{task.description} {task.completed:.3g}/{task.total:g}{note}{left}")
        return f"after {_time(time.monotonic() - self._began)}: {'; '.join(parts) or 'at work'}"

    def _index(self, what: str) -> int:
        return next(i for i, task in enumerate(self._bars.tasks) if task.id == self._tasks[what])

    def _drop(self, what: str) -> None:
        if what in self._tasks:
            self._bars.remove_task(self._tasks.pop(what))

    def _render(self) -> Group:
        return Group(*([self._table] if self._table is not None else []), self._bars)


def shown(value: float | None) -> str:
    """Return a metric with three decimals, or a dash where nothing defines it."""
    return "-" if value is None else f"{value:.3f}"


def trials_table(rows: list[dict[str, Any]]) -> Table:
    """Return the trials of a search as a table, the best one in bold."""
    within = (row for row in rows if row["state"] == "complete" and not row.get("over"))
    scores = {row["trial"]: row["score"] for row in within if row["score"] is not None}
    best = max(scores, key=scores.get) if scores else None
    lines = {row["trial"]: headline(row["validation"]) for row in rows if row["validation"]}
    names = list(next(iter(lines.values()), {}))
    table = Table(title=f"trials, by validation {names[0]}" if names else "trials")
    costs = list(next((row["costs"] for row in rows if row.get("costs")), {}))
    columns = (("trial", "right"), ("state", "left"), *((name, "right") for name in (*names, *costs)), ("s", "right"))
    for name, justify in columns:
        table.add_column(name, justify=justify)
    table.add_column("bindings")
    for row in rows:
        line = lines.get(row["trial"], {})
        seconds = f"{row['seconds']:.0f}" if row["seconds"] else ""
        paid = (amount(row["costs"][name]) if row.get("costs") else "" for name in costs)
        cells = (str(row["trial"]), _state(row), *(shown(line.get(name)) for name in names), *paid, seconds)
        table.add_row(*cells, escape("; ".join(row["bindings"])), style="bold green" if row["trial"] == best else "")
    return table


def first_look_table(rows: list[dict[str, Any]]) -> Table:
    """Return what a first look at the alternatives of a search came to as a table, the chosen combination in bold."""
    names = list(next((headline(row["validation"]) for row in rows if row["validation"]), {}))
    table = Table(title="first look at the alternatives; seconds with filling the cache")
    table.add_column("state")
    for name in ("round", "epochs", *names, "s"):
        table.add_column(name, justify="right")
    table.add_column("bindings")
    for row in rows:
        line = headline(row["validation"]) if row["validation"] else {}
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        cells = (row["state"], str(row["round"]), f"{row['epochs']:g}", *(shown(line.get(name)) for name in names))
        style = "bold green" if row["state"] == "chosen" else ""
        table.add_row(*cells, seconds, escape("; ".join(row["bindings"])), style=style)
    return table


def _line(row: dict[str, Any]) -> str:
    known = f": {in_words(row['validation'])}" if row["validation"] else ""
    return f"trial {row['trial']} {_state(row)}{known}, {row['seconds'] or 0:.0f} s"


def _state(row: dict[str, Any]) -> str:
    """Return a trial's state in words: how far it is, at which look it was cut, or which limit it breaks."""
    number, of = row.get("look") or (None, None)
    if row["state"] == "running":
        return f"running, {row['share']:.0%}" if row.get("share") else "running"
    if row["state"] == "pruned":
        return "infeasible" if row.get("cause") else f"cut at look {number}/{of}" if number else "pruned"
    return f"over {', '.join(row['over'])}" if row.get("over") else row["state"]


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
