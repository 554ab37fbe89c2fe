"""Finds Android apps that relay other people's traffic, in telemetry a security team already has."""

__version__ = "0.1.0"
