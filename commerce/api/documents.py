"""The contracts this site publishes: OpenAPI of its REST API, with a page to try it, and AsyncAPI of its events."""

from functools import cache
from typing import Any

from django.http import HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.views import SpectacularSwaggerView
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from commerce.api.asyncapi import asyncapi
from commerce.api.json import JSONRenderer

OPENAPI = "application/vnd.oai.openapi+json"
ASYNCAPI = "application/vnd.aai.asyncapi+json;version=3.0.0"


class OpenAPIView(APIView):
    authentication_classes = ()
    permission_classes = ()

    def get(self, request: Request) -> HttpResponse:
        return HttpResponse(_openapi(), content_type=OPENAPI)


class AsyncAPIView(APIView):
    authentication_classes = ()
    permission_classes = ()

    def get(self, request: Request) -> Response:
        return Response(asyncapi(), content_type=ASYNCAPI)


class DocsView(SpectacularSwaggerView):
    """Swagger UI, whose assets are served by this site."""

    authentication_classes = ()
    url_name = "schema"

    def get_renderers(self) -> list[BaseRenderer]:
        """The page is HTML; a refusal of any other method is JSON, as everywhere."""
        shows_page = self.request.method in ("GET", "HEAD")
        return super().get_renderers() if shows_page else [JSONRenderer()]

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Defined anew, because the library's leaves itself out of the document."""
        return super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]


@cache
def _openapi() -> bytes:
    """Generated once a process: it takes longer than all other answers, and anybody may ask for it."""
    return OpenApiJsonRenderer().render(SchemaGenerator().get_schema(public=True))
