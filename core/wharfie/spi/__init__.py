"""The driver contracts: the one package that a plugin imports.

Each kind of driver has a module of its own (`storage`, `network`, `ipam`, `volume`, `runtime`, `registry`, `log`,
`authz`), which opens with the model and the words. `driver` holds what all kinds share, `errors` the taxonomy,
`hooks` the pluggy specifications. This file stays empty of imports, so that a shim can load `wharfie.spi.log` without
the rest.
"""

SPI_VERSION = "1.0"
"""What this core offers. A driver written for the same major and a minor up to this one is accepted."""
