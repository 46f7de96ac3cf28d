"""AWS autoscaling groups as machines: the APIs of autoscaling, EC2 and STS, by boto3."""
