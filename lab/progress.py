"""Progress on stderr: what is done, what is next and how long it took. stdout stays for results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import rich.progress
from rich.console import Console
from rich.markup import escape


class Progress:
    """Steps with their duration: a live line on a terminal, plain lines elsewhere.

    `steps` is how many outermost steps will come; they are then counted, as in `[3/9]`.
    """

    def __init__(self, *, steps: int = 0, console: Console | None = None) -> None:
        self._steps = steps
        self._started = 0
        self._depth = 0
        self._noted: set[str] = set()
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self._live = rich.progress.Progress(
            rich.progress.SpinnerColumn(),
            rich.progress.TextColumn("{task.description} [dim]{task.fields[detail]}"),
            rich.progress.TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show `title` as under way, then as done or failed with its time. One inside another is indented."""
        if self._depth == 0:
            self._started += 1
        count = f"[{self._started}/{self._steps}] " if self._steps and self._depth == 0 else ""
        indent = "  " * self._depth
        if not self._console.is_terminal:
            self._print(f"{indent}… {count}{title}")
        elif self._depth == 0:
            self._live.start()
        self._depth += 1
        task = self._live.add_task(escape(f"{count}{title}"), detail="")
        start = time.monotonic()
        try:
            yield
        except BaseException:
            self._finish(task, f"{indent}✗ {count}{title}", start)
            raise
        self._finish(task, f"{indent}✓ {count}{title}", start)

    def detail(self, text: str) -> None:
        """Show what the innermost step is at. Gone with the next one; on a terminal only."""
        if self._live.task_ids:
            self._live.update(self._live.task_ids[-1], detail=escape(text))

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._print("  " * self._depth + text)

    def note_once(self, text: str) -> None:
        """Print a line that stays, unless the same one has been printed so."""
        if text not in self._noted:
            self._noted.add(text)
            self.note(text)

    def _finish(self, task: rich.progress.TaskID, text: str, start: float) -> None:
        self._depth -= 1
        if self._depth == 0 and self._console.is_terminal:
            self._live.stop()  # while it has a line to take away, or it leaves an empty one
        self._live.remove_task(task)
        self._live.refresh()
        self._print(f"{text} ({duration(time.monotonic() - start)})")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s` or `3 min 5 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
