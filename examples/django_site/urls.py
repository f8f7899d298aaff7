"""The URLs of the site."""

from __future__ import annotations

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from . import accounts, live, uploads, views

urlpatterns = [
    path("", views.Posts.as_view(), name="posts"),
    path("posts/new", views.NewPost.as_view(), name="new-post"),
    path("posts/<int:pk>", views.OnePost.as_view(), name="post"),
    path("posts/<int:pk>/edit", views.EditPost.as_view(), name="edit-post"),
    path("posts/<int:pk>/attach", uploads.attach, name="attach"),
    path("export.csv", views.export, name="export"),
    path("attachments/<int:pk>", uploads.download, name="attachment"),
    path("uploads/<slug:key>/progress", uploads.progress, name="progress"),
    path("live", live.page, name="live"),
    path("live/events", live.events, name="live-events"),
    path("accounts/signup", accounts.SignUp.as_view(), name="signup"),
    path("accounts/login", LoginView.as_view(), name="login"),
    path("accounts/logout", LogoutView.as_view(), name="logout"),
]
