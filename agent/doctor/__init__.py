"""`iot-agent doctor`: checks of the whole chain, each failure with its remedy."""
