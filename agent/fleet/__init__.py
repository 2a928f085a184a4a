"""Virtual devices: the demo, their past, and many of them at once."""
