"""
The provider `aws`: boxes that are EC2 instances.

* provider       the class `AWS`, which the table of providers names
* settings       the table [aws] of onebox.toml
* client         credentials, region, retries and parallel calls
* errors         the meaning of AWS's error codes
* metadata       ownership tags, and the description of a box in them
* instances      find instances and volumes, and read them as a box
* base_images    find the AMI for a name such as "ubuntu-24.04"
* network        subnets, the security group, ssh access
* reach          the tools of AWS that lead to a box
* machine_types  the offers that meet the user's requirements
* prices         on-demand and spot prices
* creation       the RunInstances call
* alarm          the deadline that AWS itself enforces
* power          stop and start
* rescue         a small instance that reads the disk of a preempted box
* deletion       delete a box, and list its resources that still exist
* images         saved images
* doctor         the checks of `inv doctor`
* policy         the minimal permissions
"""
