"""The URLs of the guest book."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("", views.guest_book, name="guest-book"),
    path("export", views.export, name="export"),
    path("slow", views.slow, name="slow"),
]
