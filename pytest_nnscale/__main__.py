"""`python -m pytest_nnscale`: the nnscale command."""

from pytest_nnscale.cli import app

if __name__ == "__main__":
    app()
