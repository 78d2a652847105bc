from django.urls import path

from fulfilment.views import CheckoutView, FulfilmentView

urlpatterns = [
    path("orders/<int:pk>/checkout", CheckoutView.as_view()),
    path("orders/<int:pk>/fulfilment", FulfilmentView.as_view()),
]
