"""From drivers to readings that are worth reporting: sensors.Sensors is the door."""
