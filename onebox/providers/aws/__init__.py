"""
The provider `aws`: boxes on EC2.

* provider       the contract, on top of the modules below
* client         calls to AWS, repeated when their outcome is unclear
* errors         the meaning of AWS's errors
* metadata       the tags of instances, volumes and images
* instances      instances and volumes, read as boxes
* base_images    the AMI that a base name stands for
* network        subnets and the security group
* machine_types  the instance types that fit a size
* prices         the prices of instances, disks and addresses
* creation       the call that creates an instance
* alarm          the deadline that the cloud enforces
* rescue         a new instance for a disk that outlived its own
* deletion       deleting a box, and finding what is left of it
* images         saved images
* doctor         the checks of `inv doctor`
* policy         the least permissions that all of this needs
"""
