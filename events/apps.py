from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class EventsConfig(AppConfig):
    name = "events"
    verbose_name = "Event pipeline"

    def ready(self) -> None:
        # Importing the patches checks kafka-python's version: a process fails at its start, not at its first event.
        import events.kafka.patches  # noqa: F401

        autodiscover_modules("events", "subscriptions", "work")
