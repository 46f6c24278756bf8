"""
This package holds what clouds of simple servers share.

The servers of such a cloud carry tags or labels. Each box has a firewall of its own,
and a server that is powered off is billed. The cloud implements `ServerAPI` and a few
methods of `ServerProvider`.

* api        the calls that the cloud implements, and the values that they return
* provider   the base class of their providers
* instances  find servers, and read one as a box
* creation   create exactly one server, even if a response is lost
* power      stop and start a server
* deletion   delete a box, and list the objects that are left of it
* network    the firewall of a box, and the owner's objects that cost nothing
"""
