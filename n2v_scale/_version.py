"""The version, read by the build and by models and plans."""

__version__ = "0.1.0.dev0"
