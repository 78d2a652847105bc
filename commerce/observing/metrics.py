"""`GET /metrics`: metrics that processes have counted, and gauges that are read from Kafka and the database.

The counted metrics are those of all processes that share the metrics folder of this process, such as other web workers.
"""

import os
import secrets

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from commerce.api.problems import problem_page
from events.observing.readings import PipelineCollector
from events.subscriptions import subscriptions
from events.work.gauges import WorkCollector
from events.work.kinds import kinds
from fulfilment.gauges import FulfilmentCollector
from sales.anomalies.gauges import AnomalyCollector

_pipeline = PipelineCollector(subscriptions)
_work = WorkCollector(kinds)
_anomalies = AnomalyCollector()
_fulfilments = FulfilmentCollector()


@csrf_exempt
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    if not settings.METRICS_TOKEN:
        return problem_page(404, "No METRICS_TOKEN is configured.")
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    is_right = secrets.compare_digest(given.encode(errors="surrogateescape"), settings.METRICS_TOKEN.encode())
    # The scheme is case-insensitive (RFC 9110, section 11.1).
    if scheme.lower() != "bearer" or not is_right:
        refusal = problem_page(401, "The token is missing or wrong.")
        refusal["WWW-Authenticate"] = "Bearer"
        return refusal
    collectors = (_counted(), _pipeline, _work, _anomalies, _fulfilments)
    text = b"".join(generate_latest(collector) for collector in collectors)
    return HttpResponse(text, content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _counted() -> Collector:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return registry
