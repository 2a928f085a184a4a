"""Both stores on InfluxDB 2."""
