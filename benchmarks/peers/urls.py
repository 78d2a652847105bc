from django.urls import include, path

from benchmarks.peers import bare_sql, usual_orders, waiting_endpoint, without_events
from commerce.urls import handler400, handler403, handler404, handler500
from commerce.urls import urlpatterns as product

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]

peers = [
    path("without-events", without_events.OrderViewSet.as_view({"post": "create"})),
    path("bare-sql", bare_sql.place_order),
    path("usual-orders", usual_orders.OrderViewSet.as_view({"post": "create"})),
    path("waiting-endpoint", waiting_endpoint.OrderViewSet.as_view({"post": "create"})),
]

# The peers come first: behind the product's patterns, resolving them would take longer.
urlpatterns = [path("peers/", include(peers)), *product]
