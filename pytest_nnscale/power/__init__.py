"""Energy counters: one small file each, behind one protocol."""
