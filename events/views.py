"""What the API views of every app have in common."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


class FreedAtOnce(APIView):
    """A view that is freed, with all that belongs to its request, as soon as that is answered.

    REST framework ties view, request and response to one another, so that they wait for the garbage collector: 80
    objects a request, and once in 130 requests a collection during which the whole process answers nobody for 8 ms.
    """

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        if isinstance(response, Response):
            response.add_post_render_callback(self._let_go)
        else:
            self._let_go()
        return response

    def _let_go(self, rendered: Any = None) -> None:
        self.request.parser_context.clear()
        if rendered is not None:
            rendered.renderer_context.clear()
        vars(self).clear()
