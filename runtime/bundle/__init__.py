"""The format of a bundle: the manifest and its records, and files that are replaced by an atomic rename."""
