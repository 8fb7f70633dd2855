"""Tells machines on a segment what to boot, beside the DHCP server that gives them their addresses."""
