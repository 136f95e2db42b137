"""Reports: values in, lines out."""
