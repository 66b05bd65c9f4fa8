"""Tests of the simulated physics."""
