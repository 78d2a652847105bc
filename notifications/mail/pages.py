"""The page on which a user turns e-mails off or on. The last link of each mail leads there, without a login."""

from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import translation
from django.utils.cache import patch_vary_headers
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from notifications.mail.opting_out import set_wanted, user_of
from notifications.models import EmailOptOut


# The signed link is the permission. A mail program sends the POST request of RFC 8058 without a cookie.
@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
def opt_out(request: HttpRequest, token: str) -> HttpResponse:
    """Show whether the user gets e-mails. A POST turns them on if its field `wanted` is "true", and otherwise off.

    A GET request changes nothing, because mail programs follow links before a person does.

    Raise Http404 for a link that this site has not signed, or whose user was deleted.
    """
    user_id = user_of(token)
    if user_id is None or not User.objects.filter(pk=user_id).exists():
        raise Http404
    if request.method == "POST":
        try:
            set_wanted(user_id, wanted=request.POST.get("wanted") == "true")
        except User.DoesNotExist as error:
            raise Http404 from error
    language = translation.get_language_from_request(request)
    with translation.override(language):
        wanted = not EmailOptOut.objects.filter(user_id=user_id).exists()
        page = render(request, "notifications/opt_out.html", {"wanted": wanted, "language": language})
    page["Content-Language"] = language
    patch_vary_headers(page, ["Accept-Language", "Cookie"])
    # The link is a permission, so no other site gets it as a referrer.
    page["Referrer-Policy"] = "no-referrer"
    return page
