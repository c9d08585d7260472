"""Pictures of benchmark results, and one HTML page that holds all of them."""
