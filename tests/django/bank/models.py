"""Accounts and the transfers between them."""

from __future__ import annotations

from django.db import models


class Account(models.Model):
    """An account with its balance."""

    balance = models.BigIntegerField()

    class Meta:
        """The name of the table."""

        db_table = "account"


class Move(models.Model):
    """A transfer, stored in the transaction that makes it."""

    source = models.ForeignKey(Account, models.CASCADE, related_name="+")
    target = models.ForeignKey(Account, models.CASCADE, related_name="+")
    amount = models.BigIntegerField()

    class Meta:
        """The name of the table."""

        db_table = "move"
