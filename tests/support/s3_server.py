"""A server that speaks S3: moto's, with corrections to answer as S3 does.

A program: `s3_server.py <host> <port>`. Of moto's server it runs the part for S3 alone, which finds out in no time
which service a request is for.
"""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import quote

from moto.core.responses import ActionResult
from moto.s3.exceptions import NoSuchUpload
from moto.s3.models import S3Backend
from moto.s3.responses import S3Response
from moto.server import MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple


def only_if_there(act: Callable[..., Any]) -> Any:
    """Answer 404 for an upload that was aborted; moto answers 500."""

    @wraps(act)
    def checked(backend: S3Backend, bucket_name: str, multipart_id: str, *args: Any, **kwargs: Any) -> Any:
        if multipart_id not in backend.get_bucket(bucket_name).multiparts:
            raise NoSuchUpload(upload_id=multipart_id)
        return act(backend, bucket_name, multipart_id, *args, **kwargs)

    return checked


for name in ("complete_multipart_upload", "upload_part", "list_parts"):
    setattr(S3Backend, name, only_if_there(getattr(S3Backend, name)))


def encode_names(response: S3Response, result: ActionResult) -> Any:
    """Encode the names in a list where the client asks for it; moto does so in some lists only."""
    if response.querystring.get("encoding-type") == ["url"]:
        for name in ("Uploads", "Versions", "DeleteMarkers"):
            for each in result.result.get(name, ()):
                each["Key"] = quote(each["Key"])
                result.result["EncodingType"] = "url"
    return serialized(response, result)


serialized = S3Response.serialized
S3Response.serialized = encode_names


class QuietHandler(MotoRequestHandler):
    """Writes no line for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""


if __name__ == "__main__":
    host, port = sys.argv[1:]
    run_simple(host, int(port), create_backend_app("s3"), threaded=True, request_handler=QuietHandler)
