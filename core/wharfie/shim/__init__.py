"""The process beside each container, forked from a zygote; standard library only.

`engine` is what a runtime driver brings; `driver` turns an engine into a whole RuntimeDriver.
"""
