from django.apps import AppConfig


class FulfilmentConfig(AppConfig):
    name = "fulfilment"

    def ready(self) -> None:
        """Register the system check, and fulfilment as the business process that controls checked-out orders."""
        import fulfilment.checks  # noqa: F401
        from fulfilment.advancing import cancel
        from fulfilment.models import Fulfilment
        from orders.processes import Process, register

        register(Process(name="fulfilment", orders=Fulfilment.objects.all, cancel=cancel))
