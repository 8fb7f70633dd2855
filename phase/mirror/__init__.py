"""Keeps a directory of releases as their publisher has them: fetched from providers, whole and verified.

`phase fetch` fills one once. `phase serve --follow` keeps one filled, also in a booted system that was given
`phase.mirror=`. No key is needed: metadata is kept as it was published.
"""
