"""URLs for these tests: the site's, and those that exist only under `make run`."""

from django.urls import include, path

import commerce.urls

urlpatterns = [path("", include("commerce.devserver.urls")), *commerce.urls.urlpatterns]
