"""Classes that are not what their entry points say."""

from hostile_drivers.good import Good

from wharfie.spi.log import LogDriver
from wharfie.spi.volume import VolumeDriver


class NextMajor(Good):
    name = "nextmajor"
    spi = "2.0"


class NextMinor(Good):
    name = "nextminor"
    spi = "1.7"


class NoSpi(Good):
    name = "nospi"
    spi = None


class Abstract(VolumeDriver):
    name = "abstract"
    spi = "1.0"

    def get(self, name):
        return None


class Misnamed(Good):
    name = "somebody-else"


class WrongKind(LogDriver):
    name = "wrongkind"
    spi = "1.0"

    def plan(self, container, options):
        return options


NO_DRIVER = 42


class Coroutine(Good):
    name = "coroutine"

    async def get(self, name):
        return None
