# Lanes of connections: `Sockets` in `_server/sockets.py`, `_ListeningSocket` in
# `_server/accepting.py`, `Port.doRead` of Twisted, and the end of a connection in
# `H1Channel`.

cdef enum:
    EVENTS = 256
# The ready connections of one turn, and the next one to read. Static, because a chain
# reads them from the stack of another greenlet.
cdef epoll_event ready[EVENTS]
cdef int next_ready, ready_count
cdef double slice_end, last_end


cdef int read_ready(SocketsState self, GreenletHubState hub) except -1:
    """Serve the ready connections, for one time slice at most."""
    global polls, poller, reading_hub, next_ready, ready_count, slice_end, last_end
    cdef list postponed = self._postponed
    if reading_hub is not None or type(self._epoll) is not EPOLL or (
        len(postponed) > EVENTS
    ):
        self._py_doRead()
        return 0
    polls += 1
    next_ready = ready_count = 0
    if postponed:
        for fd, events in postponed:
            ready[ready_count].data.fd, ready[ready_count].events = fd, events
            ready_count += 1
        self._postponed = []
    else:
        ready_count = epoll_wait(
            self._epoll.fileno(), ready, min(<int>rooms.sockets["MAX_EVENTS"], EVENTS), 0)
    if ready_count > 1:
        slice_end = hub.share_slice(ready_count)
    last_end = hub.ended_at
    poller, reading_hub = self, hub
    try:
        while read_next(self, hub, FIRST):
            pass
    finally:
        poller = reading_hub = None
        hub.slice_seconds = rooms.greenlets["SLICE_SECONDS"]
    if next_ready < ready_count:
        # Ready still, so the reactor calls again in its next turn.
        self._postponed = postponed = []
        while next_ready < ready_count:
            if ready[next_ready].data.fd in self._interest:  # else it is closed
                postponed.append((ready[next_ready].data.fd, ready[next_ready].events))
            next_ready += 1
    return 0


cdef bint read_next(SocketsState self, GreenletHubState hub, Chain chain) except -1:
    """Read the next connection; return False if none is left, or no time."""
    global next_ready, last_end
    cdef double time
    cdef epoll_event event
    if next_ready >= ready_count:
        return False
    if next_ready:
        # If a task has ended, the hub has just read the clock.
        time = hub.ended_at
        if time == last_end:
            time = now(hub.seconds)
        else:
            last_end = time
        if time > slice_end:
            return False
    event = ready[next_ready]
    next_ready += 1
    if event.events == <unsigned int>EPOLLIN:
        read_one(self, event.data.fd, chain)
    else:
        self._handle_events(event.data.fd, event.events)
    return True


cdef int read_one(SocketsState self, object fd, Chain chain) except -1:
    """Read from a ready connection, unless an earlier event has closed it."""
    cdef PyObject* found = PyDict_GetItem(self._readers, fd)
    cdef object reader, transport, why
    if found is NULL:
        return 0
    reader = <object>found
    try:
        if type(reader) is rooms.H1Channel:
            transport = (<H1ChannelState>reader)._transport
            why = read_channel(<H1ChannelState>reader, chain)
        else:
            transport = self._transports.get(fd)
            why = reader.doRead()
    except BaseException:
        why = rooms.raised()
    if why is None:
        return 0
    if type(reader) is rooms.H1Channel and (
        (<H1ChannelState>reader).listening is not None
    ):
        close_connection(<H1ChannelState>reader)
        return 0
    if transport is None:
        transport = self._transports.get(fd)  # made by the reader
    if transport is not None:
        self._lose(transport, why, fd not in self._channels)
    return 0


# Whether a process that was forked from this one may have its connections open.
cdef bint forked = False


def note_fork(parent=True):
    """Note that a forked process may have the connections; not in the child itself."""
    global forked
    forked = parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=note_fork, after_in_child=lambda: note_fork(False))


# What `accept_ready` has begun. The checks of deadlines that begin with its first
# connection stop by themselves.
cdef object accepting_port
cdef set accepted_connections
cdef H1ChannelState accepted = None  # its request is the next task of a chain
cdef int accepting_fd, accepted_count, accept_limit, accept_errno
cdef Py_ssize_t most_connections
cdef double accept_end


cdef long long first_reserved() noexcept:
    """`first_reserved`: the lowest descriptor that connections must not use."""
    cdef rlimit found
    cdef long long limit = 1 << 30
    if getrlimit(RLIMIT_NOFILE, &found) == 0 and found.rlim_cur < 1 << 30:
        limit = found.rlim_cur
    return limit - min(<long long>rooms.reserved_descriptors, limit // 8)


cdef bint accept_ready(ListeningSocketState self) except -1:
    """Accept and read for one time slice. Return False for other kinds of ports."""
    global acceptor, reading_hub, accepting_port, accepted_connections, accepting_fd
    global accepted_count, accept_limit, accept_errno, accept_end, most_connections
    cdef H1ChannelState model = self.model
    cdef ApplicationServerState server
    cdef GreenletHubState hub
    cdef object port = self._port, site = port.factory
    if (
        type(site) is not rooms.GreenSite or port.transport is not rooms.tcp_server
        or not port.connected or "buildProtocol" in site.__dict__
    ):
        return False
    if model is None or model.server is not site.server:
        if site.settings.http2 != "off" or self._socket.family != AF_INET:
            return False
        self.model = model = site._http1(None)
    server = <ApplicationServerState>model.server
    if (
        type(model) is not rooms.H1Channel or port.reactor is not model._sockets
        or type(model._sockets) is not rooms.Sockets
        or type(server) is not rooms.ApplicationServer
        or type(server.hub) is not rooms.GreenletHub or reading_hub is not None
    ):
        return False
    hub = <GreenletHubState>server.hub
    accepting_port, accepted_connections = port, server.shutdown.connections
    accepting_fd, most_connections = self._socket.fileno(), server.settings.max_connections
    accepted_count, accept_limit, accept_errno = 0, port.numberAccepts, 0
    accept_end = hub.share_slice(1)  # each task its own: their number is not known
    self._reserved = first_reserved()
    acceptor, reading_hub = self, hub
    try:
        while accept_next(self, hub, FIRST):
            pass
        # As Twisted adapts it.
        port.numberAccepts = (
            accept_limit + 20 if accepted_count == accept_limit
            else max(1, accepted_count))
        return accept_errno == 0 or accept_errno == EAGAIN  # else Python meets it again
    except BaseException:
        rooms.raised()  # Twisted would close the port
        return True
    finally:
        acceptor = reading_hub = accepting_port = accepted_connections = None
        hub.slice_seconds = rooms.greenlets["SLICE_SECONDS"]


cdef bint accept_next(
    ListeningSocketState self, GreenletHubState hub, Chain chain
) except -1:
    """Accept and read one connection; return False if there is none, or no time.

    One turn of the loop of Twisted's `Port.doRead`, and `_ListeningSocket.accept`.
    """
    global accepts, accepted, accepted_count, accept_errno
    cdef sockaddr_in peer
    cdef socklen_t size = sizeof(peer)
    cdef int fd
    cdef H1ChannelState channel = accepted
    cdef object throttle = self._throttle
    if channel is not None:
        accepted = None
        if channel.listening is not None:
            watch(channel)
    if accepted_count >= accept_limit or accept_errno or (
        (accepted_count and now(hub.seconds) > accept_end)
        or not accepting_port.connected or accepting_port.disconnecting
        or throttle.paused or (throttle._is_full is not None and throttle.pause_if_full())
    ):
        return False
    fd = accept4(accepting_fd, &peer, &size)
    if fd < 0:
        accept_errno = errno
        return False
    accepts += 1
    accepted_count += 1
    self._accepted += 1
    if fd >= self._reserved:
        self.check_descriptor(fd)
    if 0 < most_connections <= len(accepted_connections):
        c_close(fd)  # as for a factory without a protocol
    else:
        connect(self, hub, fd, &peer, chain)
    return True


cdef int connect(
    ListeningSocketState self, GreenletHubState hub, int fd, sockaddr_in* peer,
    Chain chain
) except -1:
    """`H1Channel.__init__` and `makeConnection`, then `doRead`."""
    global accepted
    cdef H1ChannelState model = self.model, channel = new(rooms.H1Channel)
    cdef ApplicationServerState server = <ApplicationServerState>model.server
    cdef ConnectionState idle = model._h1, h1 = new(type(idle))
    h1._limits, h1._lines, h1._common = idle._limits, idle._lines, idle._common
    h1.receiving, h1.sending, h1.framing = idle.receiving, idle.sending, idle.framing
    h1.pending, h1._unread = idle.pending, idle._unread
    h1._keep_alive, h1.persistent = idle._keep_alive, idle.persistent
    channel.state, channel.server, channel._h1 = model.state, server, h1
    channel._sockets, channel._handshakes = model._sockets, model._handshakes
    channel._inbox, channel._fd, channel.listening = model._inbox, fd, self
    channel.peer, channel.peer_port = peer.sin_addr, ntohs(peer.sin_port)
    channel._time, channel._unaccepted = now(hub.seconds), model._unaccepted
    accepted_connections.add(channel)
    if len(accepted_connections) == 1 and server.deadlines.idle:
        server.connection_made(channel)
    try:
        # The request has usually arrived with the connection.
        why = read_channel(channel, chain)
        if channel.listening is None:
            pass
        elif why is not None:
            close_connection(channel)
        elif prepared_task is not None:
            accepted = channel  # its request has yet to run, and may close it
        else:
            watch(channel)
    except BaseException:
        why = rooms.raised()
        transport = channel.transport
        if transport is not None:
            channel._sockets._lose(transport, why, False)
        elif channel.state is not "closed":
            server.connection_lost(channel)  # its transport could not be made
    return 0


cdef int watch(H1ChannelState self) except -1:
    """`Sockets.adopt`, and `addReader` of a transport."""
    cdef SocketsState sockets = <SocketsState>self._sockets
    cdef epoll_event event
    event.events, event.data.fd = EPOLLIN, self._fd
    if (
        (sockets._epoll is None and not sockets._open())
        or type(sockets._epoll) is not EPOLL
        or epoll_ctl(sockets._epoll.fileno(), EPOLL_CTL_ADD, self._fd, &event) < 0
    ):
        return make_transport(self)  # it meets the same error
    fd = self._fd
    sockets._interest[fd] = EPOLLIN
    sockets._channels[fd] = sockets._readers[fd] = self
    self.watched = True
    return 0


cdef int make_transport(H1ChannelState self) except -1:
    """Make the transport of an accepted connection, from now on a usual one."""
    cdef ListeningSocketState listening = self.listening
    self.listening, self.watched = None, False
    listening.connect(self, self._fd, (address_of(self.peer), int(self.peer_port)))
    return 0


cdef str address_of(in_addr address):
    """Return an IPv4 address as text."""
    cdef char text[16]
    cdef unsigned char* byte = <unsigned char*>&address
    cdef char* end = put_number(text, byte[0], 10)
    cdef int index
    for index in range(1, 4):
        end[0] = 46  # .
        end = put_number(end + 1, byte[index], 10)
    return PyUnicode_DecodeLatin1(text, end - text, NULL)


cdef str text_of(unsigned int number):
    """Return a number as text."""
    cdef char text[16]
    return PyUnicode_DecodeLatin1(text, put_number(text, number, 10) - text, NULL)


cdef int find_ends(H1ChannelState self) except -1:
    """`ends_of`: the names of both ends of an IPv4 connection without TLS."""
    cdef ListeningSocketState listening = self.listening
    cdef sockaddr_in own
    cdef socklen_t size = sizeof(own)
    if not listening.one_address or listening.server is None:
        if own_address(self._fd, &own, &size) < 0:
            return 0
        if (
            listening.server is None or own.sin_port != listening.own.sin_port
            or own.sin_addr.s_addr != listening.own.sin_addr.s_addr
        ):
            listening.own = own
            listening.server = (
                address_of(own.sin_addr), text_of(ntohs(own.sin_port)),
                self.server.settings.url_scheme or "http")
            listening.one_address = listening._port.interface not in rooms.wildcards
    name, port, scheme = listening.server
    arguments = ((
        name, port, address_of(self.peer), text_of(self.peer_port), scheme, None),)
    # As `tuple.__new__` does.
    self.ends = (<PyTypeObject*>tuple).tp_new(rooms.Ends, <PyObject*>arguments, NULL)
    return 0


cdef int close_connection(H1ChannelState self) except -1:
    """`H1Channel._close` and `connectionLost`, without a transport."""
    global closes
    cdef SocketsState sockets = <SocketsState>self._sockets
    cdef ApplicationServerState server = <ApplicationServerState>self.server
    cdef object fd = self._fd
    cdef bint watched = self.watched
    closes += 1
    self.state = "closed"
    self.listening, self.exchange, self._inbox = None, None, rooms.empty_inbox
    self.watched, self._fd = False, -1
    if self._h1.has_unread or self._h1.pending:
        self._h1.stop()
    if watched:
        del sockets._interest[fd], sockets._channels[fd], sockets._readers[fd]
        if sockets._postponed:
            sockets._postponed = [
                event for event in sockets._postponed if event[0] != fd]
        if forked:  # else the kernel removes it
            epoll_ctl(sockets._epoll.fileno(), EPOLL_CTL_DEL, fd, NULL)
        if not sockets._interest:
            sockets._close()
    if forked:
        c_shutdown(fd, SHUT_RDWR)
    c_close(fd)
    connections = server.shutdown.connections
    connections.discard(self)
    if acceptor is None and not connections:
        server.stop_if_idle()
    if server.shutdown.stopping:
        server.shutdown.complete_if_idle()
    return 0
