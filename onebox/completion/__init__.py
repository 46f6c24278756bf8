"""
Complete `onebox` command lines in bash, zsh and fish.

* scripts     what each shell runs
* candidates  how a line can continue
* values      the values of flags, read from files of this machine only
"""
