"""Models of the literature beside the figures published of them, each built here from its paper."""
