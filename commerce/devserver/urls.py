from django.urls import path

from commerce.devserver import views

urlpatterns = [
    path("token", views.token, name="devserver-token"),
    path("state", views.state, name="devserver-state"),
    path("switch", views.switch, name="devserver-switch"),
]
