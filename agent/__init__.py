"""The edge agent: measures, buffers, delivers, and accounts for every point. docs/architecture.md shows the way."""

__version__ = "0.2.0"
