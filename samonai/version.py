"""Version of the package: a module of its own, so that nobody imports the package root."""

__version__ = "0.1.0"
