from typing import cast

from django.db import transaction
from django.db.models import QuerySet
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from events.outbox.publisher import publish
from events.views import FreedAtOnce
from notifications.models import Notification
from notifications.schema import describe_notifications
from notifications.serializers import NotificationFilterSerializer, NotificationSerializer
from notifications.services import read_notification


@describe_notifications
class NotificationViewSet(FreedAtOnce, mixins.ListModelMixin, viewsets.GenericViewSet[Notification]):
    """Endpoints for the caller's own notifications."""

    serializer_class = NotificationSerializer
    filter_serializer_class = NotificationFilterSerializer

    @property
    def user_id(self) -> int:
        """Return the caller's id. Permissions reject anonymous requests."""
        return cast(int, self.request.user.pk)

    def get_queryset(self) -> QuerySet[Notification]:
        return Notification.objects.filter(user_id=self.user_id).order_by("-id")

    @action(detail=True, methods=["post"])
    def read(self, request: Request, pk: int) -> Response:
        try:
            with transaction.atomic():
                reading = read_notification(notification_id=pk, user_id=self.user_id)
                transaction.on_commit(lambda: publish(reading.events), robust=True)
        except Notification.DoesNotExist as error:
            raise NotFound from error
        return Response(self.get_serializer(reading.notification).data)
