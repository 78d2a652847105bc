from django.db import models


class RequestCount(models.Model):
    """How many requests one client has made in its current window; see commerce.api.throttling."""

    client = models.CharField(max_length=100, primary_key=True, help_text="What is counted, and whose.")
    requests = models.PositiveBigIntegerField()
    ends_at = models.DateTimeField(db_index=True, help_text="End of the window.")

    class Meta:
        db_table = "commerce_request_count"

    def __str__(self) -> str:
        return self.client
