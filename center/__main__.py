"""`python -m center` is `iot-center`."""

from center.cli import main

main()
