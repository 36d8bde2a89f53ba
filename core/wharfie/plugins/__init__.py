"""Drivers and hooks: found, loaded, guarded. The one package that knows pluggy and stevedore.

    inventory   which distributions offer what, from their metadata alone
    loader      one driver class, checked before and after its import
    settings    a driver's part of daemon.json, validated by the driver's own model
    contract    the contracts read as data: deadlines, results, removals
    worker      threads that foreign code runs in
    circuit     when to stop asking a driver that keeps failing
    failure     whatever foreign code raises, turned into the house's errors
    supervisor  one call: worker, deadline, circuit, error, figures
    opening     the steps from an entry to an open driver
    remote/     drivers in processes of their own
    host        such a process: `python -m wharfie.plugins.host KIND.NAME`
    hooks       the pluggy plugins
    feed        events to one hook plugin
    debts       removals that failed and are owed
    drivers     the front: `Drivers.get(contract, name)`

Nothing that foreign code does (raise, exit, hang, lie about its types) reaches the event loop as anything but one error
of `wharfie.spi.errors`. What threads cannot stop is a crash of the interpreter itself (`os._exit`, a fault in C code): for
that a driver is run in a process of its own.
"""
