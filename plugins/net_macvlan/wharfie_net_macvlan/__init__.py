"""Network driver `macvlan`: containers with addresses of their own on the network that an interface of the host is on."""
