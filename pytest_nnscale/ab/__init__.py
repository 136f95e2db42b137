"""Base against head: two trees of one project, timed by turns on one machine."""
