"""
The provider `digitalocean`: boxes that are droplets.

* provider       the class `DigitalOcean`, which the table of providers names
* settings       the table [digitalocean] of onebox.toml, and the time limits
* client         requests, retries and pages
* errors         the meaning of DigitalOcean's error responses
* metadata       ownership tags, and the description of a box in them
* tag_api        create, assign and delete tags
* instances      find droplets, and read one as a box
* network        the firewall of a box, ssh access
* ssh_keys       the ssh key that the create call needs
* machine_types  the offers for some requirements
* creation       create a droplet
* deadline       the box reads its deadline at every boot
* self_destroy   the box deletes itself at its deadline
* power          stop and start, and wait for actions
* deletion       delete a box, and list what is left of it
* images         saved images
* doctor         the checks of `inv doctor`, and the scopes of the token
"""
