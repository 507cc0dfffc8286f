"""What is explained: pictures, images and their preprocessing, fills, positions."""
