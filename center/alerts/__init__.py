"""Alerts: rules over what devices measure and tell, judged by one replica, sent to people: `watch.Watch`."""
