"""`python -m dropnorm.cli` is `dropnorm`."""

from dropnorm.cli import main

main()
