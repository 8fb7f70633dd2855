"""The lab is a pytest plugin; this is all it takes to have it."""

pytest_plugins = ["lab.plugin"]
