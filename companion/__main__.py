"""`python -m companion`, and `accelerate launch -m companion`."""

from companion.cli import main

main()
