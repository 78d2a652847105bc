"""The base class of the API views of every app."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


class FreedAtOnce(APIView):
    """A view that is freed with its request and response as soon as the response is rendered.

    REST framework's view, request and response reference one another, so without this class they wait for the garbage
    collector. Its runs stop every request of the process (docs/performance.md).
    """

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        if isinstance(response, Response):
            response.add_post_render_callback(self._break_cycles)
        else:
            self._break_cycles()
        return response

    def _break_cycles(self, rendered: Any = None) -> None:
        self.request.parser_context.clear()
        if rendered is not None:
            rendered.renderer_context.clear()
        vars(self).clear()
