"""Run `onebox` as `python -m onebox`."""

from onebox.program import main

main()
