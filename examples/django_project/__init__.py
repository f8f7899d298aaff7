"""A small Django project: a guest book with a form, an export and a slow page.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.django_project.wsgi:application

The package knows Django, and takes `sleep` and the database engine from txgreenwsgi.
"""
