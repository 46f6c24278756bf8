"""
The parts of the provider `aws`, each one concern of EC2's.

* cloud      the account: credentials, region, one call at a time, again if unclear
* problems   what an error of AWS's means
* marks      whose a machine or a disk is, and what box it is, in its tags
* machines   what EC2 says of instances and volumes, as boxes
* bases      which machine image a name means
* network    subnets, the security group, who may come in
* catalogue  which types fit, where they are, in what order
* prices     what they cost now
* launching  the one call that makes a machine
* alarms     the cloud's own deadline
* rescue     a machine for a disk whose own is gone
* removal    deleting, and the proof of it
* images     saved environments
* checks     what doctor looks at
* policy     the least permissions for all of this
"""
