from django.urls import path
from rest_framework_simplejwt.views import TokenObtainPairView

from commerce.accounts.views import RefreshView, RegisterView

urlpatterns = [
    path("register", RegisterView.as_view()),
    path("token", TokenObtainPairView.as_view()),
    path("token/refresh", RefreshView.as_view()),
]
