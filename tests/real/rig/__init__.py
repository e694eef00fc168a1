"""Real Cassandra nodes, the gateway and real drivers, each in a network namespace of its own.

    cache      what is fetched from package registries, once, outside the checkout
    net        namespaces, bridges, the lock, the guard that counts a client's packets to anything but the gateway
    cql        just enough of the native protocol to ask a node a question
    cassandra  one node, a ring of them
    gateway    the program under test
    program    a driver program: JSON lines out, one-word commands in
    assertions what every driver must show (CA1 to CA9)
    suites     which drivers, in which cells
    speaker    a connection that says what it likes, and mutations the requests it says
    judge      whether an answer tells an endpoint of a node
    leak       the hunt that is made of these
    flood      strangers by the thousand, flooder what each process of them does
    report     the table
"""
