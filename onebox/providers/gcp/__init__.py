"""
The provider `gcp`: boxes that are instances of Google Compute Engine.

* provider          the class `GCP`, which the table of providers names
* settings          the table [gcp] of onebox.toml
* sdk               import only the needed parts of Google's library
* credentials       the application-default credentials, and the project
* client            calls, retries and operations
* errors            the meaning of Google's error codes
* metadata          ownership labels, and the description of a box
* instances         read an instance as a box
* host_keys         the host key that a box publishes
* base_images       the image that a name such as "ubuntu-24.04" stands for
* network           firewall rules, ssh access
* reach             Identity-Aware Proxy, and gcloud
* machine_types     the offers that meet the user's requirements
* machine_families  the properties of the families of machine types
* prices            Google's price catalogue
* creation          create an instance
* power             stop and start, also as a smaller type
* deletion          delete a box, and list its resources that still exist
* images            saved images
* doctor            the checks of `inv doctor`
* policy            the minimal permissions
"""
