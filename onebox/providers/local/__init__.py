"""
The provider `local`: a box is a directory of this machine and two processes.

* `supervisor` acts as a cloud's control plane: it starts the box, enforces its
  deadline, and ends all its processes. Jobs cannot signal it.
* `machine` acts as the VM: an ssh server and the processes of the box, confined.

Both processes run without the rest of onebox (see `processes.command`), so that they
start quickly and stay small. The modules that they use import only each other and
`onebox.agent`.
"""
