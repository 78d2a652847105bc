from django.urls import path

from notifications.views import NotificationViewSet

urlpatterns = [
    path("notifications", NotificationViewSet.as_view({"get": "list"})),
    path("notifications/<int:pk>/read", NotificationViewSet.as_view({"post": "read"})),
]
