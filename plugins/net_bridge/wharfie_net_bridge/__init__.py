"""Network driver `bridge`: a Linux bridge for each network, a veth pair for each endpoint, NAT and ports by nftables."""
