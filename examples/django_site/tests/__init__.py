"""The site's own tests: `python examples/django_site/manage.py test examples`."""
