from django.urls import path

from sales.views import SalesView, SummaryView

urlpatterns = [
    path("sales", SalesView.as_view()),
    path("me/summary", SummaryView.as_view()),
]
