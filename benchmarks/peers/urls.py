from django.urls import path

from benchmarks.peers import bare_sql, synchronous_kafka, without_events
from commerce.urls import handler400, handler403, handler404, handler500
from commerce.urls import urlpatterns as product

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]

urlpatterns = [
    *product,
    path("peers/without-events", without_events.OrderViewSet.as_view({"post": "create"})),
    path("peers/bare-sql", bare_sql.place_order),
    path("peers/synchronous-kafka", synchronous_kafka.OrderViewSet.as_view({"post": "create"})),
]
