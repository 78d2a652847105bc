from django.urls import path

from commerce.accounts.views import LoginView, RefreshView, RegisterView

urlpatterns = [
    path("register", RegisterView.as_view()),
    path("token", LoginView.as_view()),
    path("token/refresh", RefreshView.as_view()),
]
