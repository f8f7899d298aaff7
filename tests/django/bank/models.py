"""Accounts, and what was moved between them."""

from __future__ import annotations

from django.db import models


class Account(models.Model):
    """How much there is."""

    balance = models.BigIntegerField()

    class Meta:
        """Its table."""

        db_table = "account"


class Move(models.Model):
    """What was moved; written in the same transaction."""

    source = models.ForeignKey(Account, models.CASCADE, related_name="+")
    target = models.ForeignKey(Account, models.CASCADE, related_name="+")
    amount = models.BigIntegerField()

    class Meta:
        """Its table."""

        db_table = "move"
