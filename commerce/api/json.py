"""JSON with exact decimals. The parser returns int and Decimal; the renderer writes a Decimal with all its digits."""

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import IO, Any

import msgspec
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from events.wire.encodings import byte_order_mark

_decoder = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")


class UnsupportedEncoding(APIException):
    """The body is compressed. The answer names the only accepted encoding (RFC 9110, section 12.5.3)."""

    status_code = status.HTTP_415_UNSUPPORTED_MEDIA_TYPE
    default_code = "unsupported_encoding"
    accept_encoding = "identity"

    def __init__(self, encoding: str) -> None:
        super().__init__(f"Content-Encoding {encoding!r} is not taken: send the body as it is, without that header.")


class JSONParser(BaseParser):
    media_type = "application/json"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        _refuse_encodings((parser_context or {})["request"])
        body = stream.read()
        try:
            return _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if mark := byte_order_mark(body):
                raise ParseError(f"The body begins with {mark}: send JSON as UTF-8 without it.") from error
            raise ParseError(f"The body is not JSON: {error}.") from error
        except InvalidOperation as error:
            raise ParseError("The body has a number whose exponent is out of range.") from error
        except RecursionError as error:
            raise ParseError("The body is nested too deeply.") from error


def _refuse_encodings(request: Request) -> None:
    for encoding in request.headers.get("Content-Encoding", "").split(","):
        if encoding.strip().lower() not in ("", "identity"):
            raise UnsupportedEncoding(encoding.strip())


class JSONRenderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return b"" if data is None else _encoder.encode(data)


class AlwaysJSON(DefaultContentNegotiation):
    """Content negotiation that selects the view's first renderer, also for errors and regardless of `Accept`.

    The first renderer is JSON, except for the page of Swagger UI.
    """

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type
