"""What a bundle is: the manifest and its records, files that are written whole or not at all."""
