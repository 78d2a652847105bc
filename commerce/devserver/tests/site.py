"""The site's URLs with those that exist under `make run` alone."""

from django.urls import include, path

import commerce.urls

urlpatterns = [path("", include("commerce.devserver.urls")), *commerce.urls.urlpatterns]
