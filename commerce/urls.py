from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.urls import include, path, re_path
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import RedirectView

from commerce import error_pages
from commerce.accounts.admin_login import change_own_password
from commerce.accounts.views import MeView
from commerce.admin_site import handbook
from commerce.api import problems
from commerce.api.documents import AsyncAPIView, DocsView, OpenAPIView
from commerce.observing import health
from commerce.observing.metrics import metrics
from commerce.operations import pipeline
from commerce.operations.schema import describe_order_events
from commerce.operations.timeline import OrderEventsView
from commerce.start import start
from notifications.mail.pages import opt_out
from sales.dashboard import views as sales

urlpatterns = [
    path("", start),
    path("api/auth/", include("commerce.accounts.urls")),
    path("api/me", MeView.as_view()),
    path("api/orders/<int:pk>/events", describe_order_events(OrderEventsView).as_view()),
    path("api/", include("orders.urls")),
    path("api/", include("notifications.urls")),
    path("api/", include("sales.urls")),
    path("api/", include("fulfilment.urls")),
    path("api/schema", OpenAPIView.as_view(), name="schema"),
    path("api/docs", DocsView.as_view(), name="docs"),
    path("api/asyncapi", AsyncAPIView.as_view(), name="asyncapi"),
    # Explicit, because in debug mode Django's page would replace handler404, and a POST would get the CSRF page.
    re_path(r"^api/", csrf_exempt(problems.not_found)),
    path("email/opt-out/<str:token>", opt_out, name="email-opt-out"),
    path("health/live", health.live, name="live"),
    path("health/ready", health.ready, name="ready"),
    path("metrics", metrics),
    path(settings.ADMIN_PATH.rstrip("/"), RedirectView.as_view(pattern_name="admin:index")),
    path(f"{settings.ADMIN_PATH}password_change/", admin.site.admin_view(change_own_password, cacheable=True)),
    path(f"{settings.ADMIN_PATH}pipeline/", admin.site.admin_view(pipeline.page), name="pipeline"),
    path(f"{settings.ADMIN_PATH}pipeline/state", admin.site.admin_view(pipeline.state), name="pipeline-state"),
    path(f"{settings.ADMIN_PATH}sales/", admin.site.admin_view(sales.page), name="sales-page"),
    path(f"{settings.ADMIN_PATH}sales/state", admin.site.admin_view(sales.state), name="sales-state"),
    path(
        f"{settings.ADMIN_PATH}docs/operations.md",
        admin.site.admin_view(handbook.page),
        {"document": "operations.md"},
        name="runbook",
    ),
    # The links between the documents are relative.
    path(f"{settings.ADMIN_PATH}docs/<path:document>", admin.site.admin_view(handbook.page)),
    path(f"{settings.ADMIN_PATH}i18n/", include("django.conf.urls.i18n")),
    path(settings.ADMIN_PATH, admin.site.urls),
]
if apps.is_installed("commerce.devserver"):
    urlpatterns.append(path("devserver/", include("commerce.devserver.urls")))
# Last, and explicit, because in debug mode Django's page would replace handler404 for people as well.
urlpatterns.append(re_path(r".*", csrf_exempt(error_pages.not_found)))

handler400 = error_pages.bad_request
handler403 = error_pages.permission_denied
handler404 = error_pages.not_found
handler500 = error_pages.server_error
