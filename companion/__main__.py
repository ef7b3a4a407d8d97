"""`python -m companion`, which `accelerate launch` and `torchrun` start as `-m companion`."""

from companion.cli import main

main()
