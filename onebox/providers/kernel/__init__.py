"""
This package holds the mechanisms that clouds share.

* cloud_provider  the base class of their providers
* cloud_settings  the base class of their tables in onebox.toml
* retry           when an API call is repeated
* wait            the loop that waits for a change of state
* errors          a table that maps error responses to error classes
* clock           the time by the cloud's clock
* metadata        the key-value pairs that record the owner and the facts of a box
* alphabet        how a text is written with the characters that tags may hold
* user_data       the program that arms a box at every boot
* ssh_access      the networks that may reach ssh
* public_ip       this machine's public address
* ranking         the order of offers, and the message when none fits
* images          how an image is saved, adopted and deleted
* doctor          run the checks of `inv doctor`

Clouds whose SDKs have no retries and no time limits of their own also use:

* http            requests, and the meaning of their failures
* timeouts        the time limits of requests and waits

Clouds that bill a machine that is powered off also use:

* billed_off      the user's choice of what ends the billing, and its settings
* self_destroy    the program by which a box deletes itself
* servers         boxes that are servers with tags: find, create, power, delete
"""
