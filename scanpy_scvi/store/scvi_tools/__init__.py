"""Models of scvi-tools, read and written without it."""
