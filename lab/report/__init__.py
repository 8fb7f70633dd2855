"""Turns the results of a run into `summary.json`, a table for the terminal and one HTML file.

Reads what the pytest plugin wrote, one directory per architecture: `records/*.json` (one per scenario and
topology) and `allure/` (Allure's own result files). Used by `python -m lab report`.
"""
