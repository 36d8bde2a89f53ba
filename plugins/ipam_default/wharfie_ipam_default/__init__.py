"""IPAM driver `default`: subnets from address pools, addresses in order, all of it in memory."""
