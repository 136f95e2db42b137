"""How long a call takes: clocks, samples of a fixed number, and their distribution-free interval."""
