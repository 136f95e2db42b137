"""What a workload does, counted exactly; imported only where something is counted (torch)."""
