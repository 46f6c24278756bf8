"""
This package holds what clouds of simple servers share.

Such a cloud has servers that carry tags or labels, one firewall for each box, and bills
a server that is powered off. It implements `ServerAPI` and a few methods of
`ServerProvider`.

* api        the calls that the cloud implements, and the values that they return
* provider   the base class of their providers
* instances  find servers, and read one as a box
* creation   create exactly one server, even if a response is lost
* power      stop and start a server
* deletion   delete a box, and list what is left of it
* network    the firewall of a box, and the free objects of an owner
"""
