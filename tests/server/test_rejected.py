"""What a real gunicorn refuses before the application sees it has the form of all errors: no HTML, no 500."""

import json
from contextlib import ExitStack

import pytest

from tests.server.wire import FILESETS, WORKSPACES, answer, connect
from tests.support.stack import Stack

HOST, JSON, CHUNKED = "Host: localhost", "Content-Type: application/json", "Transfer-Encoding: chunked"
PUT, POST = f"PUT {FILESETS}/data/-/refused HTTP/1.1", f"POST {WORKSPACES} HTTP/1.1"
PROOF = "5\r\nhello\r\n0\r\n\r\n"

REFUSED = {
    "a long address": ([f"GET {WORKSPACES}?filter={'x' * 9000} HTTP/1.1", HOST, ""], "", 414),
    "a large header": (["GET / HTTP/1.1", HOST, f"X-Large: {'x' * 110_000}", ""], "", 431),
    "headers without an end": (["GET / HTTP/1.1", HOST, f"X-Large: {'x' * 300_000}"], "", 431),
    "many headers": (["GET / HTTP/1.1", HOST, *(f"X-{number}: x" for number in range(50)), ""], "", 431),
    "no host": (["GET /health/ready HTTP/1.1", ""], "", 400),
    "no request": (["hello", ""], "", 400),
    "a small method": (["get / HTTP/1.1", HOST, ""], "", 400),
    "lines without CR": ([], f"GET / HTTP/1.1\n{HOST}\n\n", 400),
    "a header without a colon": (["GET / HTTP/1.1", HOST, "X", ""], "", 400),
    "a folded header": (["GET / HTTP/1.1", HOST, "X: a", " b", ""], "", 400),
    "a length that is none": ([POST, HOST, JSON, "Content-Length: 5x", ""], "hello", 400),
    "two lengths": ([POST, HOST, JSON, "Content-Length: 5", "Content-Length: 6", ""], "hello!", 400),
    "a length and chunks": ([POST, HOST, JSON, "Content-Length: 5", CHUNKED, ""], PROOF, 400),
    "an unknown expectation": ([PUT, HOST, "Expect: miracles", "Content-Length: 5", ""], "hello", 417),
    "an unknown coding": ([PUT, HOST, "Transfer-Encoding: brotli, chunked", ""], PROOF, 501),
    "a compressed file": ([PUT, HOST, "Transfer-Encoding: gzip, chunked", ""], PROOF, 501),
    "a compressed file in two headers": ([PUT, HOST, "Transfer-Encoding: gzip", CHUNKED, ""], PROOF, 501),
    "chunks of JSON without a size": ([POST, HOST, JSON, CHUNKED, ""], "x\r\nhello\r\n0\r\n\r\n", 400),
    "chunks of JSON without an end": ([POST, HOST, JSON, CHUNKED, ""], "2\r\nhello\r\n0\r\n\r\n", 400),
    "chunks of a file without a size": ([PUT, HOST, CHUNKED, ""], "x\r\nhello\r\n0\r\n\r\n", 400),
    "chunks of a file without an end": ([PUT, HOST, CHUNKED, ""], "2\r\nhello\r\n0\r\n\r\n", 400),
}


@pytest.mark.parametrize(("lines", "rest", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_a_request_against_the_standard_is_refused_in_the_form_of_all_errors(
    stack: Stack, connections: ExitStack, lines: list[str], rest: str, status: int
) -> None:
    answered, head, body = answer(connect(stack, connections, *lines, rest=rest))

    assert answered == status, body
    assert "Content-Type: application/json" in head
    assert "X-Content-Type-Options: nosniff" in head
    detail = json.loads(body)["detail"]
    assert "Traceback" not in detail
    assert stack.client.get(f"{FILESETS}/data/-/refused").status_code == 404


def test_no_refusal_is_an_error_in_the_log(stack: Stack) -> None:
    assert "Traceback" not in stack.log("web")
    assert "request.failed" not in stack.log("web")
