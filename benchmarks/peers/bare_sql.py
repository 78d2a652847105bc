"""An upper bound on the speed of placing orders.

This view only inserts the rows that the product inserts, in one statement.
"""

import json
from uuid import uuid4

from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

PLACE_ORDER = """
    WITH placed AS (
        INSERT INTO orders_order (user_id, total_amount, status, created_at, last_sequence)
        VALUES (%(user)s, %(price)s * %(quantity)s, 'PENDING', now(), 1)
        RETURNING id, created_at
    ), item AS (
        INSERT INTO orders_orderitem (order_id, product_id, quantity, price)
        SELECT id, %(product)s, %(quantity)s, %(price)s FROM placed
        RETURNING id
    ), event AS (
        INSERT INTO events_outboxevent
            (event_id, event_type, topic, key, value, headers, stream, sequence, created_at, parked_reason,
            published_at, published_partition, published_offset)
        SELECT %(event_id)s, 'ORDER_CREATED', 'peers', convert_to(id::text, 'UTF8'), %(value)s, %(headers)s,
            'order-' || id, 1, created_at, '', now(), 0, 0
        FROM placed
    )
    SELECT placed.id, item.id, created_at FROM placed, item
    """
VALUE = b'{"eventType":"ORDER_CREATED","totalAmount":200.00}'.ljust(170)
HEADERS = b" " * 330
"""Bytes for the headers column, as many as the product stores for an event."""


@csrf_exempt
def place_order(request: HttpRequest) -> JsonResponse:
    (line,) = json.loads(request.body)["items"]
    with connection.cursor() as cursor:
        cursor.execute(
            PLACE_ORDER,
            {
                "user": int(request.headers["X-User"]),
                "product": line["productId"],
                "quantity": line["quantity"],
                "price": line["price"],
                "event_id": str(uuid4()),
                "value": VALUE,
                "headers": HEADERS,
            },
        )
        order_id, item_id, created_at = cursor.fetchone()
    order = {
        "id": order_id,
        "userId": request.headers["X-User"],
        "totalAmount": line["price"] * line["quantity"],
        "status": "PENDING",
        "createdAt": created_at,
        "items": [{"id": item_id, **line}],
    }
    return JsonResponse(order, status=201)
