"""The provider `aws`, against an AWS account that a server of ours keeps."""
