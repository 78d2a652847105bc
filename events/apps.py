from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class EventsConfig(AppConfig):
    name = "events"
    verbose_name = "Event pipeline"

    def ready(self) -> None:
        autodiscover_modules("events", "subscriptions")
