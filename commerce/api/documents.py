"""Views of the published contracts: OpenAPI of the REST API, Swagger UI, and AsyncAPI of the events."""

import threading
from functools import cache, partial
from typing import Any

from django.http import HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularSwaggerView
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from commerce.api.asyncapi import asyncapi
from commerce.api.json import JSONRenderer
from commerce.api.schema import EXAMPLE_SITE

OPENAPI_JSON = "application/vnd.oai.openapi+json"
ASYNCAPI_JSON = "application/vnd.aai.asyncapi+json;version=3.0.0"

_operation = partial(extend_schema, tags=["Documents"])
_generating = threading.Lock()


class OpenAPIView(APIView):
    authentication_classes = ()
    permission_classes = ()

    @_operation(
        operation_id="getOpenAPI", summary="This document", responses={(200, OPENAPI_JSON): OpenApiTypes.OBJECT}
    )
    def get(self, request: Request) -> HttpResponse:
        site = request.build_absolute_uri("/").rstrip("/")
        return HttpResponse(_openapi().replace(EXAMPLE_SITE.encode(), site.encode()), content_type=OPENAPI_JSON)


class AsyncAPIView(APIView):
    authentication_classes = ()
    permission_classes = ()

    @_operation(
        operation_id="getAsyncAPI",
        summary="The events on Kafka, as an AsyncAPI 3 document",
        # The OpenAPI document names media types without parameters.
        responses={(200, ASYNCAPI_JSON.partition(";")[0]): OpenApiTypes.OBJECT},
    )
    def get(self, request: Request) -> Response:
        return Response(asyncapi(), content_type=ASYNCAPI_JSON)


class DocsView(SpectacularSwaggerView):
    """Swagger UI with assets from this site."""

    authentication_classes = ()
    url_name = "schema"

    def get_renderers(self) -> list[BaseRenderer]:
        """Return the renderer of HTML for the page, and that of JSON for the response 405 to another method."""
        shows_page = self.request.method in ("GET", "HEAD")
        return super().get_renderers() if shows_page else [JSONRenderer()]

    @_operation(
        operation_id="getDocs",
        summary="This document as a page to try things on",
        responses={(200, "text/html"): OpenApiTypes.STR},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return the page of Swagger UI. The library's own method would leave the page out of the OpenAPI document."""
        return super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]


def _openapi() -> bytes:
    # drf-spectacular loads its extensions lazily, and fails when two threads do so at once.
    with _generating:
        return _generated()


@cache
def _generated() -> bytes:
    """Return the OpenAPI document as JSON.

    It is the same for all users. Generating takes long, so each process does it only once.
    """
    return OpenApiJsonRenderer().render(SchemaGenerator().get_schema(public=True))
