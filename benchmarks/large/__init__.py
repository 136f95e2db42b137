"""Models far larger than the memory of the machine that counts them."""
