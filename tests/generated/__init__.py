"""The pages and tables that are made from the code. `python -m tests.generated` writes them."""
