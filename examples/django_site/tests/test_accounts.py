"""Sign-up, login and logout."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.test import TestCase

PASSWORD = "correct horse battery"


class AccountTests(TestCase):
    """Accounts of users."""

    def test_sign_up_logs_in(self) -> None:
        """Signing up logs the user in."""
        form = {"username": "ann", "password1": PASSWORD, "password2": PASSWORD}
        self.assertRedirects(self.client.post("/accounts/signup", form), "/")
        self.assertContains(self.client.get("/posts/new"), "<h1>Write</h1>")

    def test_passwords_differ(self) -> None:
        """Two different passwords are rejected."""
        form = {"username": "ann", "password1": PASSWORD, "password2": "other"}
        answer = self.client.post("/accounts/signup", form)
        self.assertContains(answer, "match.</li>")
        self.assertEqual(get_user_model().objects.count(), 0)

    def test_log_in_and_out(self) -> None:
        """A session lasts from login to logout."""
        get_user_model().objects.create_user("ann", password=PASSWORD)
        form = {"username": "ann", "password": "wrong"}
        self.assertContains(self.client.post("/accounts/login", form), "correct")
        form["password"] = PASSWORD
        self.assertRedirects(self.client.post("/accounts/login", form), "/")
        self.assertContains(self.client.get("/"), "Log out ann")
        self.assertRedirects(self.client.post("/accounts/logout"), "/")
        self.assertContains(self.client.get("/"), "Log in")

    def test_hash_is_djangos(self) -> None:
        """Passwords are stored in Django's own format."""
        user = get_user_model().objects.create_user("ann", password=PASSWORD)
        self.assertTrue(user.password.startswith("pbkdf2_sha256$"))
        with self.settings(
            PASSWORD_HASHERS=["django.contrib.auth.hashers.PBKDF2PasswordHasher"]
        ):
            self.assertTrue(user.check_password(PASSWORD))
