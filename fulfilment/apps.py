from django.apps import AppConfig


class FulfilmentConfig(AppConfig):
    name = "fulfilment"

    def ready(self) -> None:
        """Take control of the orders that are checked out."""
        from fulfilment.advancing import cancel
        from fulfilment.models import Fulfilment
        from orders.processes import Process, register

        register(Process(name="fulfilment", orders=Fulfilment.objects.all, cancel=cancel))
