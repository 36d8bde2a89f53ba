"""Registry driver `oci`: a client of the OCI distribution protocol.

driver      the contract
requests    its queries: endpoint after endpoint, authenticated as they ask for
upload      a blob on its way to a registry
http        one request: endpoint, redirects, time limits
endpoints   how a server may be reached: TLS or not, its certificates, mirrors
hosts       hosts.toml
auth        challenges and tokens
failures    what went wrong, in dockerd's words
settings    this driver's part of daemon.json
"""
