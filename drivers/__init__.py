"""Sensor drivers and the contract that they keep."""
