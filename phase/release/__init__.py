"""The publish side: repositories, keys, and the manifest model that clients share.

Imports nothing here on purpose: a booting seed takes `phase.release.manifest` alone.
"""
