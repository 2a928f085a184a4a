"""The two interfaces behind everything: Registry and Telemetry."""
