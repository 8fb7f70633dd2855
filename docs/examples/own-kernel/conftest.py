"""Where the lab is installed, pytest has it; this line is for a checkout whose environment is older."""

pytest_plugins = ["lab.plugin"]
