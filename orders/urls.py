from django.urls import path

from orders.views import OrderViewSet

urlpatterns = [
    path("orders", OrderViewSet.as_view({"get": "list", "post": "create"})),
    path("orders/<int:pk>", OrderViewSet.as_view({"get": "retrieve"})),
    path("orders/<int:pk>/pay", OrderViewSet.as_view({"post": "pay"})),
    path("orders/<int:pk>/cancel", OrderViewSet.as_view({"post": "cancel"})),
]
