"""How fast dropnorm is, measured from outside against running services: `make bench`."""
