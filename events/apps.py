from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class EventsConfig(AppConfig):
    name = "events"
    verbose_name = "Event pipeline"

    def ready(self) -> None:
        # Every process refuses a kafka-python that the patches do not fit when it starts, and not at its first event.
        import events.kafka.patches  # noqa: F401

        autodiscover_modules("events", "subscriptions")
