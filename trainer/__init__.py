"""From images of good parts to a trained network."""
