"""The demo classifier, a picture to explain, and what is true of it; written by ``models.train_demo``."""
