"""
The provider `digitalocean`: boxes that are droplets.

* provider       the class `DigitalOcean`, which the table of providers names
* settings       the table [digitalocean] of onebox.toml, and the time limits
* client         requests, retries and pages
* errors         the meaning of DigitalOcean's error responses
* metadata       ownership tags, and the description of a box in them
* tag_api        create, assign and delete tags
* instances      find droplets, and read one as a box
* base_images    the image that a name such as "ubuntu-24.04" stands for
* network        the firewall of a box, ssh access
* ssh_keys       the ssh key that the create call needs
* machine_types  the offers for some requirements
* prices         prices that the API does not report
* creation       create a droplet
* deadline       what enforces the deadline, and how a box reads it at every boot
* self_destroy   the box deletes itself at its deadline
* power          stop and start, and wait for actions
* deletion       delete a box, and list what is left of it
* images         saved images
* doctor         the checks of `inv doctor`
* policy         the minimal scopes of the token
"""
