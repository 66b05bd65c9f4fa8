"""Tests of the service, its parts and its processes, in real time."""
