"""The content of an upload as a stream of chunks, from a raw body or a form."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain

from flask import Request
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from app.errors import BadRequest, Busy, DomainError, TooLarge, TooSlow

_CHUNK = 1024 * 1024
FORM_FIELD = "file"


def uploaded(request: Request, *, max_bytes: int, idle_s: float) -> Iterator[bytes]:
    """The content: the raw body, or the field `file` of a form. Takes constant memory and no disk.

    Raises TooLarge for more than `max_bytes` (0 means no limit), before any chunk if the length was announced.
    Raises BadRequest for a malformed form, and when fewer bytes arrive than were announced.
    Raises Busy when the server stops meanwhile, and TooSlow when no byte arrives for `idle_s` seconds, if the server
    gives access to its socket.
    """
    if max_bytes and (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    body = _body(request, max_bytes, idle_s)
    if request.mimetype != "multipart/form-data":
        return body
    boundary = request.mimetype_params.get("boundary", "")
    if not boundary:
        raise BadRequest("A form needs a boundary: multipart/form-data; boundary=…")
    return _form_field(body, boundary.encode())


def _body(request: Request, max_bytes: int, idle_s: float) -> Iterator[bytes]:
    announced, arrived = request.content_length, 0
    while chunk := _next_chunk(request, arrived, idle_s):
        arrived += len(chunk)
        if max_bytes and arrived > max_bytes:
            # The rest is never read: the server closes the connection of a client that goes on sending.
            raise _too_large(max_bytes)
        yield chunk
    # Some servers end the stream without an error when the connection breaks.
    if announced is not None and arrived < announced:
        raise _broken_off(request, arrived)


def _next_chunk(request: Request, arrived: int, idle_s: float) -> bytes:
    try:
        with _limited_wait(request, idle_s):
            chunk: bytes = request.stream.read(_CHUNK)
    except TimeoutError:
        raise _too_slow(arrived, idle_s) from None
    except Exception as error:  # noqa: BLE001 -- the boundary to the server, which has its own errors for bad chunks
        if isinstance(error.__cause__, TimeoutError):
            raise _too_slow(arrived, idle_s) from None
        raise _broken_off(request, arrived) from None
    return chunk


@contextmanager
def _limited_wait(request: Request, idle_s: float) -> Iterator[None]:
    """Set a receive timeout of `idle_s` seconds on the connection, for the block only."""
    connection = request.environ.get("gunicorn.socket")
    if connection is None:
        yield
        return
    before = connection.gettimeout()
    connection.settimeout(idle_s)
    try:
        yield
    finally:
        # A closed connection has no timeout to restore.
        with suppress(OSError):
            connection.settimeout(before)


# Up to a chunk more may have arrived: the server keeps what it has of a chunk to itself when it gives up.


def _too_slow(arrived: int, idle_s: float) -> TooSlow:
    return TooSlow(
        f"The upload stalled for {idle_s:g} s, or was too slow, after at least {arrived} bytes; nothing was stored."
    )


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(
        f"The upload is larger than {max_bytes} bytes, the most that is accepted; nothing was stored."
    )


def _broken_off(request: Request, arrived: int) -> DomainError:
    if getattr(request.environ.get("gunicorn.socket"), "is_cut", False):
        return Busy("The server is restarting, and nothing was stored; send the file again.")
    return BadRequest(f"The upload broke off after at least {arrived} bytes; nothing was stored.")


def _form_field(body: Iterator[bytes], boundary: bytes) -> Iterator[bytes]:
    # Decoded here, because Flask's form parser would first write the content to a temporary file.
    is_content = is_found = False
    for event in _form_events(body, boundary):
        match event:
            case File() | Field():
                is_content = event.name == FORM_FIELD and not is_found
                is_found = is_found or is_content
            case Data() if is_content:
                yield event.data
    if not is_found:
        raise BadRequest(f"The form has no field '{FORM_FIELD}' with the content.")


def _form_events(body: Iterator[bytes], boundary: bytes) -> Iterator[Event]:
    # The limit applies to the parts around the content; the decoder passes content on as it arrives.
    decoder = MultipartDecoder(boundary, max_form_memory_size=2 * _CHUNK)
    for chunk in chain(body, [None]):
        decoder.receive_data(chunk)
        while True:
            try:
                event = decoder.next_event()
            except ValueError:
                raise BadRequest("The form is malformed or incomplete; nothing was stored.") from None
            if isinstance(event, NeedData):
                break
            yield event
            if isinstance(event, Epilogue):
                return
