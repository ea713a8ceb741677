"""Learn the density of table rows with a continuous normalizing flow."""
