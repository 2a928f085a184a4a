"""Virtual devices: their past, many of them at once, and the center that they and the demo have on loopback."""
