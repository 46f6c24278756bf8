"""
The provider `digitalocean`: boxes that are droplets.

The steps that create, stop, start and delete a box are in `kernel/servers`. This
package holds what is special to this cloud:

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
* create_body    the body of the create call, and the check of the disk
* deadline       how a box reads its deadline at every boot
* images         saved images
* doctor         the checks of `inv doctor`
* policy         the minimal scopes of the token
"""
