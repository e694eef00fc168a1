"""Every check, in the order in which it runs."""
from . import values, objects, rights, clouds, addresses, files  # noqa: F401
