"""The sign-up view. Login and logout are Django's own views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib.auth import login
from django.contrib.auth.forms import UserCreationForm
from django.urls import reverse_lazy
from django.views.generic import CreateView

if TYPE_CHECKING:
    from django.http import HttpResponse


class SignUp(CreateView):
    """Create an account and log the user in."""

    form_class = UserCreationForm
    template_name = "registration/signup.html"
    success_url = reverse_lazy("posts")

    def form_valid(self, form: UserCreationForm) -> HttpResponse:
        """Save the account."""
        response = super().form_valid(form)
        login(self.request, self.object)
        return response
