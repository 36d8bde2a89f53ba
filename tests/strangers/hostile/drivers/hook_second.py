"""An object with hooks, which sets what `hook_good` may set, too."""

from wharfie.spi.hooks import Adjustment, hookimpl


class Second:
    @hookimpl
    def adjust_container(self, container):
        name = "FROM_GOOD" if container.name == "clash" else "FROM_SECOND"
        return Adjustment(env={name: "x"}, mounts=({"destination": "/second"},))


PLUGIN = Second()
