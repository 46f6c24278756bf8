"""
The provider `hetzner`: boxes that are servers of Hetzner Cloud.

The steps that create, stop, start and delete a box are in `kernel/servers`. This
package holds what is special to this cloud:

* provider       the class `Hetzner`, which the table of providers names
* settings       the table [hetzner] of onebox.toml
* client         the library's client, and the meaning of Hetzner's errors
* api            the calls for servers, firewalls, ssh keys, addresses and volumes
* metadata       labels: ownership, and the description of a box in them
* machine_types  server types as offers, and the price list
* deadline       how a box gets its deadline after a restart
* images         saved images
"""
