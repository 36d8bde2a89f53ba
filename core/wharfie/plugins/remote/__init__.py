"""Drivers in processes of their own: the same contract over a unix socket.

    frames      messages and descriptors on a socket
    codec       values to JSON and back, by the contract's type hints
    border      what crosses: calls, errors, events, log readers
    serve       the driver's side: `python -m wharfie.plugins.host KIND.NAME`
    process     the daemon's side: one such process, from its start to its end
    proxy       a driver class whose methods are calls into the process
    keeper      starts it again when it dies

`"drivers": {"volume.acme": {"isolate": true}}` in daemon.json asks for it. The supervisor before it is the same: worker,
deadline, circuit, figures. What a thread cannot survive (`os._exit`, a fault in C code, a hang that holds the
interpreter) ends only this process.
"""
