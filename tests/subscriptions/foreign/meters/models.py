from typing import ClassVar

from django.db import models


class Meter(models.Model):
    number = models.IntegerField(unique=True)
    total = models.IntegerField(default=0)

    objects: ClassVar[models.Manager["Meter"]] = models.Manager()

    class Meta:
        app_label = "meters"

    def __str__(self) -> str:
        return f"Meter {self.number}"
