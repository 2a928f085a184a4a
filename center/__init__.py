"""The IoT Center: device registration API and the pages where people look at their sensors."""
