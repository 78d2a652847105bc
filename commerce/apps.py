from django.apps import AppConfig

from commerce.admin_site.names import translate_names


class CommerceConfig(AppConfig):
    name = "commerce"

    def ready(self) -> None:
        from commerce.accounts import names
        from commerce.observing.tracing import configure

        configure()
        names.connect()
        translate_names()
