"""The edge agent: measures, buffers, delivers, and accounts for every point."""

__version__ = "0.1.0"
