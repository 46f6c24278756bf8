"""
A fake AWS account over HTTP: EC2, and the calls to other services that onebox makes.

moto stores the objects. The fake is stricter than moto: it refuses parameters that
AWS's service models lack, a client token with other parameters, types that a zone
lacks, use beyond quota or capacity, and state changes that EC2 refuses.
"""
