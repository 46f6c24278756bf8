"""
The inside of a local box: a directory, and two processes that make it a machine.

* `supervisor` is what a cloud's control plane is to a VM: it starts the box,
  keeps its deadline, and ends every process of it. Jobs cannot signal it.
* `machine` is the VM: an ssh server and whatever runs in the box, confined.

Both run without the rest of onebox (see `layout.command`), so that they start
quickly and stay small: modules here that they use import only each other.
"""
