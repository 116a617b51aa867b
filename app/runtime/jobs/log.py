"""Copies the output of a job's processes to the job's log."""

import os
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from threading import Event, Thread
from typing import IO

from app.lease import LeaseLost
from app.logs import get_logger
from app.runtime.jobs.log_writer import Line, LogWriter
from app.runtime.lease import DATABASE_AWAY

log = get_logger(__name__)

_FLUSH_S = 0.25  # A reader who follows the log sees a line this late.
_UNFINISHED_S = 1.0  # A line without its end, such as a prompt, is written this late.
_FRAMES_S = 10.0  # A line that is overwritten again and again, such as a progress bar, is written this often.
_LINES_AT_ONCE = 500  # Bounds a transaction, and with the longest line the memory of a reader.
_LONGEST_LINE = 64 * 1024  # A longer one is split: it may never end.
_AGAIN_S = 1.0
_CHECK_S = 1.0  # Between two checks whether to go on reading.


class LogReader(Thread):
    """A thread that reads the output of a process until the last writer is gone.

    It goes on reading even if the log cannot be written, or the process would block for ever.
    """

    def __init__(self, writer: LogWriter, step: str, output: IO[bytes]) -> None:
        super().__init__(name=f"log of {step}", daemon=True)
        self._writer, self._step, self._output = writer, step, output
        # What it logs names the work that it is done for.
        self._in_task = copy_context()
        self._is_over = Event()
        self._is_mute = False
        self._is_writing = False
        self._is_cut = False
        self._unfinished = bytearray()
        self._lines: list[Line] = []
        self._due = self._unfinished_due = self._begun_at = 0.0
        self._has_frames = False
        self._printed_at = time.monotonic()
        self.start()

    @property
    def silence_s(self) -> float:
        """For how long nothing was printed; 0 while the log is being written, because nothing is read meanwhile."""
        return 0.0 if self._is_writing else time.monotonic() - self._printed_at

    def abandon(self) -> None:
        """Stop reading, although processes still hold the output: they are not of this job, or the lease is lost."""
        self._is_over.set()

    def run(self) -> None:
        """Read, split into lines, and write a few times a second."""
        self._in_task.run(self._copy)

    def _copy(self) -> None:
        with self._output, selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while not self._is_over.is_set():
                if selector.select(self._select_timeout_s()):
                    chunk = os.read(self._output.fileno(), _LONGEST_LINE)
                    if not chunk:
                        break
                    self._printed_at = time.monotonic()
                    self._take(chunk)
                if self._unfinished and time.monotonic() >= self._unfinished_due:
                    self._take_unfinished()
                # Only with lines: a flush resets the time since the last output.
                if self._lines and (len(self._lines) >= _LINES_AT_ONCE or time.monotonic() >= self._due):
                    self._flush()
        if self._unfinished:
            self._lines.append(Line.now(_text(self._unfinished)))
        self._flush()
        self._lines = self._writer.take_tail()
        self._flush(self._writer.insert)

    def _select_timeout_s(self) -> float:
        """Seconds until something is due, even if nothing more is printed."""
        dues = ([self._due] if self._lines else []) + ([self._unfinished_due] if self._unfinished else [])
        return max(0.0, min([_CHECK_S, *(due - time.monotonic() for due in dues)]))

    def _take(self, chunk: bytes) -> None:
        if self._is_cut:
            # The line end of the line that was already written.
            chunk = chunk.removeprefix(b"\r").removeprefix(b"\n")
            self._is_cut = False
        if not self._lines:
            self._due = self._printed_at + _FLUSH_S
        if not self._unfinished or b"\n" in chunk:
            self._begun_at = self._printed_at
        self._has_frames &= b"\n" not in chunk
        self._unfinished += chunk
        *whole, rest = self._unfinished.split(b"\n")
        for line in whole:
            self._lines += [Line.now(_text(piece)) for piece in _pieces(_last_frame(line))]
        shown = _last_frame(rest)
        self._has_frames |= len(shown) < len(rest.rstrip(b"\r"))
        # The end of the line may be of its last frame, or of the one after it.
        rest = shown + b"\r" * rest.endswith(b"\r")
        self._unfinished_due = self._begun_at + (_FRAMES_S if self._has_frames else _UNFINISHED_S)
        if len(rest) >= _LONGEST_LINE:
            *begun, rest = _pieces(rest)
            self._lines += [Line.now(_text(piece)) for piece in begun]
        self._unfinished = rest

    def _take_unfinished(self) -> None:
        """Write the unfinished line as a line; later output begins a new one."""
        cut = _between_characters(self._unfinished, len(self._unfinished)) or len(self._unfinished)
        self._lines.append(Line.now(_text(self._unfinished[:cut])))
        self._unfinished = self._unfinished[cut:]
        self._is_cut = not self._unfinished
        self._begun_at = time.monotonic()
        self._unfinished_due = self._begun_at + _UNFINISHED_S

    def _flush(self, append: Callable[[str, Sequence[Line]], None] | None = None) -> None:
        append = append or self._writer.append
        self._is_writing = True
        while self._lines and not self._is_mute:
            batch = self._lines[:_LINES_AT_ONCE]
            try:
                append(self._step, batch)
                del self._lines[: len(batch)]
            except LeaseLost:
                self._is_mute = True
            except DATABASE_AWAY:
                # Once the pipe is full the process waits: better than a gap in its log.
                self._is_mute = self._is_over.wait(_AGAIN_S)
            except Exception:
                # The boundary of the thread: it must go on reading, although the log cannot be written.
                log.exception("job_log.failed", step=self._step)
                self._is_mute = True
        self._lines.clear()
        self._printed_at, self._is_writing = time.monotonic(), False


def _last_frame(line: bytearray) -> bytearray:
    """What a terminal shows of a line that returns to its beginning, as progress bars do: all after the last return."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _pieces(line: bytearray) -> Iterator[bytearray]:
    """A line in pieces that are not too long, cut between characters; a short or empty line is one piece."""
    while len(line) >= _LONGEST_LINE:
        cut = _between_characters(line, _LONGEST_LINE - 1)
        yield line[:cut]
        line = line[cut:]
    yield line


def _between_characters(line: bytearray, at: int) -> int:
    """Where to cut so that no UTF-8 sequence is cut in two: at most 3 bytes before `at`."""
    for length in range(1, min(4, at + 1)):
        lead = line[at - length]
        if lead & 0xC0 != 0x80:
            needed = 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return at if needed <= length else at - length
    return at


def _text(line: bytes | bytearray) -> str:
    # PostgreSQL cannot store NUL in a text.
    return line.removesuffix(b"\r").decode(errors="replace").replace("\0", "")
