from django.urls import path

from benchmarks.peers import bare_sql, usual_orders, waiting_endpoint, without_events
from commerce.urls import handler400, handler403, handler404, handler500
from commerce.urls import urlpatterns as product

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]

urlpatterns = [
    *product,
    path("peers/without-events", without_events.OrderViewSet.as_view({"post": "create"})),
    path("peers/bare-sql", bare_sql.place_order),
    path("peers/usual-orders", usual_orders.OrderViewSet.as_view({"post": "create"})),
    path("peers/waiting-endpoint", waiting_endpoint.OrderViewSet.as_view({"post": "create"})),
]
