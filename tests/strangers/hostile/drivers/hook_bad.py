"""Hook plugins that must not be registered."""

from wharfie.spi.hooks import hookimpl


class Misspelt:
    @hookimpl
    def admit_imagge(self, reference):
        return None


class Coroutine:
    @hookimpl
    async def admit_image(self, reference):
        return None


class Argument:
    @hookimpl
    def admit_image(self, reference, colour):
        return None


MISSPELT = Misspelt()
COROUTINE = Coroutine()
ARGUMENT = Argument()
