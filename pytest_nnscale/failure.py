"""The failure of a test that is over its budget."""

from _pytest.outcomes import Failed  # pytest.fail.Exception, by the name that types know


class BudgetExceeded(Failed):
    """A test did its own work, and its model did not keep to a budget, or could not be judged."""

    # As pytest's own outcomes have it: the short summary has no room for a module's name.
    __module__ = "builtins"
