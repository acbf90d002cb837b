"""What watches the line from outside its path: health over HTTP, metrics, drift."""
