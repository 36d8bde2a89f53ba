"""Networks: their records and addresses, the endpoints of containers, published ports, names."""
