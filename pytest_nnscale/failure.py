"""The failure of a test that is over its budget."""

import pytest


class BudgetExceeded(pytest.fail.Exception):
    """A test did its own work, and its model did not keep to a budget, or could not be judged."""
