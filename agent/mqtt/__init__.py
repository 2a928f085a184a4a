"""The newest values over MQTT, beside the delivery. The door is publisher.py; paho-mqtt is loaded when it connects."""
