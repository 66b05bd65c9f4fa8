"""The conformance suite, run on the devices that come with the project."""
