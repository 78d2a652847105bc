from django.apps import AppConfig

from commerce.names import translate_names


class CommerceConfig(AppConfig):
    name = "commerce"

    def ready(self) -> None:
        from commerce.tracing import configure

        configure()
        translate_names()
