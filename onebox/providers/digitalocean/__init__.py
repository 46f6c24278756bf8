"""
The provider `digitalocean`: boxes that are droplets.

* provider       the class `DigitalOcean`, which the table of providers names
* settings       the table [digitalocean] of onebox.toml
* client         requests and pages
* errors         the meaning of DigitalOcean's error responses
* api            the calls for droplets, firewalls, ssh keys and volumes
* metadata       ownership tags, and the description of a box in them
* tag_api        create, assign and delete tags
* instances      find droplets, and read one as a server
* base_images    the image that a name such as "ubuntu-24.04" stands for
* network        the firewall of a box
* machine_types  the offers for some requirements
* prices         prices that the API does not report
* creation       the body of the create call
* deadline       how a box reads its deadline at every boot
* images         saved images
* doctor         the checks of `inv doctor`
* policy         the minimal scopes of the token
"""
