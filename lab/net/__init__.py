"""The lab's networks: an Ethernet switch in user space, no root, nothing of the host's network."""
