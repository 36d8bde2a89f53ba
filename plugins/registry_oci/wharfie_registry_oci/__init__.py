"""Registry driver `oci`: a client of the OCI distribution protocol.

driver      the contract, request by request
http        one request: endpoint, redirects, time limits
endpoints   how a server may be reached: TLS or not, its certificates, mirrors
auth        challenges and tokens
failures    what went wrong, in dockerd's words
settings    this driver's part of daemon.json
"""
