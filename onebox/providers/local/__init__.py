"""
The provider `local`: a box is a directory on this machine and two processes.

* `box_supervisor` acts as a cloud's control plane: it starts the box, enforces its
  deadline, and ends all its processes. Jobs cannot signal it.
* `machine` acts as the VM: an ssh server and the processes of the box, confined.

Both processes import only a few modules of onebox (see `box_processes.command`), so
that they start quickly and stay small. These modules import no part of onebox except
each other and `onebox.agent`.

These modules run in the client, which is the process of an `inv` command:

* provider       the class `Local`, the implementation of the provider
* settings       the tables [local] and [local.rehearse] of onebox.toml
* host           the hardware, system and clock of this machine
* instances      read a box from its files, and check its owner
* creation       create a box: its directory, its files, its first start
* power          start and stop a box, and wait until that is done
* deletion       remove a box, and list its directories and processes that remain
* images         saved images: copies of the home directory
* directories    copy, remove and measure directories
* locks          the lock of a box; while it is held, the box is in use
* doctor         the checks of `inv doctor`

These modules run in the two processes of a box, and some also in the client:

* layout         the paths of a box's files, and its boot configuration
* box_processes  start, find and end the processes of a box
* path_shims     a box's own versions of `poweroff`, `sudo` and similar commands
* confinement    what a job can reach, made of `mounts` and `sandbox` (Landlock)
* ssh_session    one session of the ssh server
"""
