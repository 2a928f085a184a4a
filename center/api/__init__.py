"""The HTTP API for devices and programs."""
