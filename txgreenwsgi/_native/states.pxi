# State classes: the attributes of the server's classes, in C. The class without "State"
# documents them. A method here is the one that Python calls: it takes the lane or calls
# the Python method.

@cython.final
cdef class FieldLines:
    """The field lines of a head, without the Cookie, and their meaning.

    Clients send the same lines with each request, so those that were received together
    repeatedly are kept, with the environ of such a request as a template: a copy of a
    dict costs less than its entries.
    """

    cdef bytes lines
    cdef Py_ssize_t before  # bytes before the Cookie; -1 without one
    cdef dict variables
    cdef object content_length
    cdef bint keep_alive, kept
    # The template, and the objects that are in it.
    cdef dict template, shared
    cdef tuple line, last_line
    cdef object name, port, scheme, traceparent


cdef class RequestHeadState:
    cdef public str method, path, query, version
    cdef public bytes target
    cdef public object content_length, upgrade
    cdef public bint keep_alive, expects_continue
    # A head of `read_head` has its variables as lines until Python code reads them.
    cdef dict _variables
    cdef FieldLines fields
    cdef str cookie
    cdef tuple line  # in the cache of request lines, or None

    @property
    def variables(self):
        if self._variables is None:
            self._variables = {} if self.fields is None else dict(self.fields.variables)
            if self.cookie is not None:
                self._variables["HTTP_COOKIE"] = self.cookie
            self.fields = self.cookie = None  # the receiver may modify the dict
        return self._variables

    @variables.setter
    def variables(self, value):
        self._variables, self.fields, self.cookie = value, None, None


cdef class ResponseHeadState:
    cdef public list _lines
    cdef public object content_length, dropped
    cdef public int code
    cdef public bint _has_date, _has_server, ends_connection


cdef class CommonFieldsState:
    cdef public object _added
    cdef public bytes _date_line, _server_line
    cdef public double _date_valid_from, _date_valid_until
    cdef public bint adds_fields


cdef class ErrorsState:
    cdef public object request_id, partial_line, partial_output, traceparent


cdef class AdmissionQueueState:
    cdef public object _queue
    cdef public long long limit, max_queued, running


cdef class RequestTableState:
    cdef public set exchanges
    cdef public object observers, needs, watcher, pending, _id_prefix
    cdef public long long _last_id


cdef class ApplicationServerState:
    cdef public object application, settings, limits, common, context, admission
    cdef public object table, shutdown, detached, runner, note, hub, metrics, times
    cdef public dict environ
    cdef public bint keeps_alive  # False while it stops


cdef class AutomaticRoutesState:
    cdef public dict moved, suspects


cdef class RequestMeterState:
    cdef public double ordinary, seconds
    cdef public long long sent
    cdef public object values
    cdef public dict first_bytes


cdef class SocketOutputState:
    cdef public object _sender, _socket, _transport, waiting
    cdef public bint may_buffer


cdef class ConnectionState:
    # Of RequestParser, and of Connection, which derives from it.
    cdef public object _limits, _lines, receiving, _body
    cdef public object _common, _request, framing, sending
    cdef public bytes pending, _unread
    cdef public int _leading
    cdef public bint _line_read, _keep_alive, has_unread, persistent
    cdef public long long _left
    cdef public Py_ssize_t _unread_from


cdef class RequestBodyState:
    cdef public object _stream, limits, _length, _pieces, error, reader
    cdef public long long _received
    cdef public double _waited, pause_seconds
    cdef public bint _paused, _stalled, client_waits, complete
    cdef public Py_ssize_t held
    # The whole body, if it came with the head; counted by `held`.
    cdef bytes piece

    def receive(self, wanted=65536):
        if self.piece is not None and self.held:
            self._pieces, self.piece = deque((self.piece,)), None
        return self._py_receive(wanted)


cdef class InputState:
    cdef public object _source, _buffered
    cdef public Py_ssize_t _start, _stretch_end
    cdef public bint _ended

    def read(self, size=-1, /):
        piece = read_whole(self, size)
        return self._py_read(size) if piece is None else piece


cdef class TaskState:
    cdef public object hub, ident, name, _args, _kwargs, _context, _on_end
    cdef public object _asyncio_state, state, _result, _error, _traceback, greenlet
    cdef public object _parked_greenlet, suspension, _interruptions, _before_end
    cdef public object _log_contexts
    cdef public long long shield_depth, _refusals
    cdef public bint _observed, pending_interruption, dying, uses_reactor, measured
    cdef public bint _exit_raised
    cdef object __weakref__
    # The request of a task that `start_exchange` has made; its end is noted first.
    cdef ExchangeState exchange
    cdef object function

    @property
    def _function(self):
        if self.function is None and self.exchange is not None:
            return self.exchange._run
        return self.function

    @_function.setter
    def _function(self, value):
        self.function = value

    def __del__(self):
        if self._error is not None and not self._observed:
            self.log_unhandled()


cdef class GreenletHubState:
    cdef public object reactor, seconds, on_turn, on_long_turn, reactor_greenlet
    cdef public object thread, context_tracker
    cdef public set tasks
    cdef public list spare_greenlets
    cdef public double resumed_at, ended_at, yielded_at, slice_seconds
    cdef public bint closed

    def start(self, task):
        if type(task) is rooms.Task and not self.closed and (
            (<TaskState>task).state is "new"
        ):
            start_task(self, <TaskState>task, None, ALONE)
        else:
            self._py_start(task)

    def _switch_to(self, task):
        if type(task) is rooms.Task:
            run_turn(self, <TaskState>task, False)
        else:
            self._py_switch_to(task)


cdef class ExchangeState:
    cdef public object state, outcome, stream, server, head, ends, limits, body
    cdef public object errors, request_id, task, error, blocks, details
    cdef public double started, _started_unix, deadline, stalled
    cdef public long long bytes_sent, _left
    cdef public int code
    cdef public bint iterating, bodiless, _awaits_stop, _yielding
    cdef bint runs_here  # by `run_exchange`

    def admit(self):
        if not admit(self, ALONE):
            self._py_admit()

    def _start(self):
        if not start_exchange(self, ALONE):
            self._py_start()

    def respond(self, head, block):
        if not respond(self, head, block, True):
            self._py_respond(head, block)

    def write(self, block):
        if not write_block(self, block):
            self._py_write(block)


cdef class StartResponseState:
    cdef public object _sink, head
    cdef public bint sent

    def __call__(self, status, headers, exc_info=None):
        cdef object head = None
        if exc_info is None and self.head is None and not self.sent:
            head = response_head(status, headers)
        if head is None:
            return self._py_call(status, headers, exc_info)
        self.head = head
        return self.write


cdef class ThreadRunnerState:
    cdef public object _patterns, _serve, _observed
    cdef public bint _automatic, _has_patterns

    def run(self, application, environ, sink):
        if may_serve(self):
            serve(application, environ, sink)
        else:
            self._py_run(application, environ, sink)


cdef class H1ChannelState:
    cdef public object state, server, exchange, _sockets, _handshakes
    cdef public object _proxied, _inbox, ends
    cdef public ConnectionState _h1
    cdef public long long _discarded, _unaccepted
    cdef public double _time
    cdef public int _fd
    cdef public bint reading_paused, _pumping
    cdef object _transport, _output
    # Of a connection that was accepted by a lane and has no transport yet: the port, the
    # peer, and whether `Sockets` watches it. Python code that reads `transport` or
    # `output` makes the transport.
    cdef ListeningSocketState listening
    cdef in_addr peer
    cdef unsigned short peer_port
    cdef bint watched

    @property
    def transport(self):
        if self.listening is not None:
            make_transport(self)
        return self._transport

    @transport.setter
    def transport(self, value):
        self._transport = value

    @property
    def output(self):
        if self.listening is not None:
            make_transport(self)
        return self._output

    @output.setter
    def output(self, value):
        self._output = value

    @property
    def waiting(self):
        # Of a connection without a transport, no task is parked in a send.
        return None if self.listening is not None else self._output.waiting

    def _close(self):
        if self.listening is None:
            self._py_close()
        else:
            close_connection(self)

    def doRead(self):
        if type(self) is not rooms.H1Channel:
            return self._py_doRead()
        return read_channel(self, ALONE)

    def dataReceived(self, data):
        if type(data) is not bytes or not feed(
            self, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), ALONE
        ):
            self._py_dataReceived(data)


cdef class ListeningSocketState:
    cdef public object _socket, _throttle, _reactor, _accept_all, _port
    cdef public double _end
    cdef public long long _accepted, _reserved
    cdef public bint _closing
    # A channel without a connection, and the server's address that was seen last.
    cdef H1ChannelState model
    cdef tuple server
    cdef sockaddr_in own
    cdef bint one_address

    def accept_turn(self):
        if not accept_ready(self):
            self._py_accept_turn()


cdef class SocketsState:
    cdef public object _hub, _epoll, _postponed
    cdef public dict _interest, _readers, _transports, _channels

    def doRead(self):
        if type(self._hub) is rooms.GreenletHub:
            read_ready(self, <GreenletHubState>self._hub)
        else:
            self._py_doRead()
