# Lanes of the exchange: `Exchange` in `_serving/exchange.py`, `ApplicationServer` and
# `RequestTable`, and the environ.

# Facts about the settings and limits that were seen last. Both never change.
cdef object last_settings = None, last_limits = None
cdef bint plain_settings, examines_heads
cdef double request_seconds
cdef long long body_bytes


cdef int note_settings(object settings) except -1:
    global last_settings, plain_settings
    plain_settings = not settings.buffer_input and not settings.environ
    last_settings = settings
    return 0


cdef int note_limits(object limits) except -1:
    global last_limits, examines_heads, request_seconds, body_bytes
    last_limits = None
    examines_heads, body_bytes = limits.examines_heads, limits.body_bytes
    request_seconds = limits.request_seconds
    last_limits = limits
    return 0


cdef inline bint is_usual(ExchangeState self) noexcept:
    """Return whether head and server have the types that the lanes rely on."""
    return type(self.head) is rooms.RequestHead and (
        type(self.server) is rooms.ApplicationServer
        and type((<ApplicationServerState>self.server).hub) is rooms.GreenletHub
    )


cdef ExchangeState new_exchange(
    H1ChannelState channel, ApplicationServerState server, object head, object body
):
    """`Exchange.__init__`."""
    cdef ExchangeState self = new(rooms.Exchange)
    cdef RequestTableState table = <RequestTableState>server.table
    self.state, self.outcome = "queued", "finished"
    self.stream, self.server, self.head, self.body = channel, server, head, body
    self.ends, self.limits = channel.ends, server.limits
    self.request_id = next_id(table)
    self.started = now((<GreenletHubState>server.hub).seconds)
    self._started_unix = clock(CLOCK_REALTIME) if table.observers else 0.0
    self.deadline = float("inf")
    if request_seconds:
        self.deadline = self.started + request_seconds
    self._left = -1
    table.exchanges.add(self)
    return self


cdef str next_id(RequestTableState table):
    """`RequestTable.next_id`."""
    cdef char text[40]
    cdef Py_ssize_t size
    cdef const char* prefix
    if not table._id_prefix or len(<str>table._id_prefix) != 8:
        return table.next_id()
    table._last_id += 1
    prefix = PyUnicode_AsUTF8AndSize(table._id_prefix, &size)
    memcpy(text, prefix, 8)
    text[8] = 45  # -
    return PyUnicode_DecodeLatin1(
        text, put_number(text + 9, table._last_id, 16) - text, NULL)


cdef char* put_number(char* out, unsigned long long number, unsigned int base) noexcept:
    """Write a number with lower-case digits; return their end."""
    cdef char digits[24]
    cdef int count = 0
    while number or not count:
        digits[count] = b"0123456789abcdef"[number % base]
        number //= base
        count += 1
    while count:
        count -= 1
        out[0] = digits[count]
        out += 1
    return out


cdef bint admit(ExchangeState self, Chain chain) except -1:
    cdef AdmissionQueueState admission
    if self.state is not "queued" or not is_usual(self):
        return False
    if self.limits is not last_limits:
        note_limits(self.limits)
    length = (<RequestHeadState>self.head).content_length
    if examines_heads or (body_bytes and length and length > body_bytes):
        return False
    admission = <AdmissionQueueState>(<ApplicationServerState>self.server).admission
    if admission.running >= admission.limit:
        return False
    admission.running += 1
    if not start_exchange(self, chain):
        self._py_start()
    return True


cdef bint start_exchange(ExchangeState self, Chain chain) except -1:
    """`Exchange._start` and `Task.__init__`. A chain runs the task itself."""
    global starts, prepared_task
    cdef ApplicationServerState server
    cdef GreenletHubState hub
    cdef TaskState task
    if not is_usual(self):
        return False
    server = <ApplicationServerState>self.server
    hub = <GreenletHubState>server.hub
    if hub.closed:
        return False
    starts += 1
    self.state = "running"
    self.task = task = new(rooms.Task)
    task.exchange = self
    task.hub, task.ident, task.name, task.state = hub, 0, "request", "new"
    task._args = NO_ARGUMENTS
    task._context = PyContext_Copy(server.context)
    task._log_contexts = (
        <list?>(chain_contexts if chain == NEXT else hub.context_tracker.contexts))[:]
    note = server.note
    if note is not None:
        try:
            note.request_id = self.request_id
            note.method, note.target = self.head.method, self.head.target
            note.running = 1
        except ValueError:
            rooms.note_request(note, self.request_id, self.head)
    if chain == NEXT and hub is reading_hub and note is chain_note:
        hub.tasks.add(task)
        prepared_task = task
        return True
    start_task(hub, task, note, chain)
    if note is not None:
        note.running = 0
    return True


cdef bint may_run(ExchangeState self) except -1:
    """Return whether `run_exchange` covers the request: no stored or buffered body."""
    cdef ApplicationServerState server
    if (
        not is_usual(self)
        or (<RequestHeadState>self.head).content_length is None
        or (<RequestHeadState>self.head).upgrade  # the environ offers a WebSocket
        or (type(self.stream) is not rooms.H1Channel and self.stream.body_is_stored)
    ):
        return False
    server = <ApplicationServerState>self.server
    if server.settings is not last_settings:
        note_settings(server.settings)
    return plain_settings


cdef inline bint serves_in_task(object runner) except -1:
    """Return whether a runner calls `serve` and does nothing else for this request."""
    if runner is rooms.serve:
        return True
    if type(runner) is not BUILTIN or PyCFunction_GetSelf(runner) is NULL:
        return False
    # The one compiled method of the class is `run`.
    owner = <object>PyCFunction_GetSelf(runner)
    return type(owner) is rooms.ThreadRunner and may_serve(<ThreadRunnerState>owner)


cdef inline bint may_serve(ThreadRunnerState self) except -1:
    """Return whether no request of a runner runs in a thread or is measured."""
    if self._has_patterns or not self._automatic or self._serve is not rooms.serve:
        return False
    routes = None if self._observed is None else self._observed[1]
    return type(routes) is rooms.AutomaticRoutes and not (
        (<AutomaticRoutesState>routes).moved or (<AutomaticRoutesState>routes).suspects)


cdef int run_exchange(ExchangeState self, ApplicationServerState server) except -1:
    """`Exchange._run`, without its handler of exceptions (`failure_of`)."""
    if serves_in_task(server.runner):
        serve(server.application, environ_of(self, server), self)
    else:
        server.runner(server.application, environ_of(self, server), self)
    return 0


cdef dict environ_of(ExchangeState self, ApplicationServerState server):
    """`Exchange._environ` and `environ_of`."""
    global templates
    cdef RequestHeadState head = <RequestHeadState>self.head
    cdef FieldLines fields = head.fields
    cdef InputState body = new(rooms.Input)
    cdef ErrorsState errors = new(rooms.Errors)
    cdef dict environ, template = None
    cdef tuple ends = <tuple>self.ends
    cdef object name = <object>PyTuple_GET_ITEM(ends, 0)
    cdef object port = <object>PyTuple_GET_ITEM(ends, 1)
    cdef object scheme = <object>PyTuple_GET_ITEM(ends, 4)
    cdef object more = <object>PyTuple_GET_ITEM(ends, 5)
    if fields is not None and fields.shared is server.environ:
        templates += 1
        template = fields.template
        environ = PyDict_Copy(template)
        errors.traceparent = fields.traceparent
    else:
        environ = PyDict_Copy(server.environ)
        PyDict_Update(environ, head.variables if fields is None else fields.variables)
        PyDict_SetItem(environ, "SERVER_PROTOCOL", head.version)
        if "HTTP_TRACEPARENT" in environ:
            errors.traceparent = environ["HTTP_TRACEPARENT"]
    if head.cookie is not None:
        PyDict_SetItem(environ, "HTTP_COOKIE", head.cookie)
    if template is None or head.line is None:
        put_line(self, server, head, environ)
    elif head.line is not fields.line:
        put_line(self, server, head, environ)
        if head.line is fields.last_line:  # the second time in a row
            put_line(self, server, head, template)
            fields.line = head.line
        fields.last_line = head.line
    if template is None or name is not fields.name or port is not fields.port or (
        scheme is not fields.scheme
    ):
        PyDict_SetItem(environ, "SERVER_NAME", name)
        PyDict_SetItem(environ, "SERVER_PORT", port)
        PyDict_SetItem(environ, "wsgi.url_scheme", scheme)
    PyDict_SetItem(environ, "REMOTE_ADDR", <object>PyTuple_GET_ITEM(ends, 2))
    PyDict_SetItem(environ, "REMOTE_PORT", <object>PyTuple_GET_ITEM(ends, 3))
    if fields is not None and fields.kept and template is None and more is None:
        # A value for each key: below, the keys get those of the request.
        fields.template = template = PyDict_Copy(environ)
        for key in OF_ONE_REQUEST:
            PyDict_SetItem(template, key, None)
        if head.cookie is not None:
            PyDict_SetItem(template, "HTTP_COOKIE", None)
        fields.traceparent = errors.traceparent
        fields.shared, fields.line = server.environ, head.line
        fields.name, fields.port, fields.scheme = name, port, scheme
    if more is not None:
        environ.update(more)
    body._source = self if self.body is rooms.no_body else self.body
    body._buffered, body._stretch_end = b"", -1
    PyDict_SetItem(environ, "wsgi.input", body)
    errors.request_id, errors.partial_line = self.request_id, ""
    self.errors = errors
    PyDict_SetItem(environ, "wsgi.errors", errors)
    PyContextVar_Set(rooms.current_errors, errors)
    PyDict_SetItem(environ, "txgreenwsgi.request_id", self.request_id)
    gone = PyMethod_New(rooms.client_disconnected, self)
    PyDict_SetItem(environ, "txgreenwsgi.client_disconnected", gone)
    PyDict_SetItem(environ, "waitress.client_disconnected", gone)
    timeout = PyMethod_New(rooms.set_request_timeout, self)
    PyDict_SetItem(environ, "txgreenwsgi.set_request_timeout", timeout)
    stopping = PyMethod_New(rooms.stopping, self)
    PyDict_SetItem(environ, "txgreenwsgi.stopping", stopping)
    hints = PyMethod_New(rooms.send_early_hints, self)
    PyDict_SetItem(environ, "wsgi.early_hints", hints)
    head._variables, head.fields, head.cookie = None, None, None
    if (<RequestTableState>server.table).observers:
        head._variables = {
            name: environ[name] for name in rooms.recorded if name in environ}
        if (<RequestTableState>server.table).needs:
            self.details = rooms.RecordDetails(environ)
    return environ


# The keys whose values are those of one request.
cdef tuple OF_ONE_REQUEST = (
    "wsgi.input", "wsgi.errors", "txgreenwsgi.request_id",
    "txgreenwsgi.client_disconnected", "waitress.client_disconnected",
    "txgreenwsgi.set_request_timeout", "txgreenwsgi.stopping", "wsgi.early_hints",
)


cdef int put_line(
    ExchangeState self, ApplicationServerState server, RequestHeadState head, dict environ
) except -1:
    """Set the variables of the request line."""
    cdef str path = head.path
    cdef object text = PyUnicode_DecodeLatin1(
        PyBytes_AS_STRING(head.target), PyBytes_GET_SIZE(head.target), NULL)
    if path == "*" or server.environ.get("SCRIPT_NAME"):
        path = self._path_info()
    PyDict_SetItem(environ, "REQUEST_METHOD", head.method)
    PyDict_SetItem(environ, "PATH_INFO", path)
    PyDict_SetItem(environ, "QUERY_STRING", head.query)
    PyDict_SetItem(environ, "RAW_URI", text)
    PyDict_SetItem(environ, "REQUEST_URI", text)
    return 0


cdef int count_ended(ExchangeState self, object metrics, double now) except -1:
    """The part of `ApplicationServer.exchange_ended` that counts."""
    cdef RequestMeterState meter
    cdef double seconds = now - self.started
    if (
        isinstance(metrics, RequestMeterState)
        and seconds < rooms.fast_seconds
        and self.code == 200
        and self.outcome == "finished"
        and self.body is rooms.no_body
        and self.head.method == "GET"
        and self not in (<RequestMeterState>metrics).first_bytes
    ):
        meter = <RequestMeterState>metrics
        meter.ordinary += 1.0
        meter.values[0] = meter.ordinary
        meter.seconds += seconds
        meter.sent += self.bytes_sent
    else:
        metrics.ended(self)
    return 0


cdef int watch_ended(ExchangeState self, RequestTableState table, double now) except -1:
    """`RequestTable.watcher`, for a request that succeeds at a known path."""
    cdef RequestHeadState head
    if (
        self.code < 400
        and self.outcome == "finished"
        and table.pending is not None
        and isinstance(self.head, RequestHeadState)
    ):
        head = <RequestHeadState>self.head
        durations = (<dict>table.pending).get((head.method, head.path))
        if durations is not None:
            (<list>durations).append(now - self.started)
            return 0
    table.watcher(self)
    return 0


cdef bint end_exchange(ExchangeState self) except -1:
    """`Exchange._task_ended`, `ApplicationServer.exchange_ended`, `H1Channel.ended`."""
    global ends
    cdef ApplicationServerState server
    cdef AdmissionQueueState admission
    cdef RequestTableState table
    cdef H1ChannelState channel
    cdef ConnectionState h1
    if (
        self.state is not "complete" or self.error is not None or not is_usual(self)
        or type(self.stream) is not rooms.H1Channel or (<TaskState>self.task).measured
        or (self.body is not rooms.no_body and not is_read(self.body))
        or (self.errors is not None and not is_flushed(<ErrorsState>self.errors))
    ):
        return False
    server = <ApplicationServerState>self.server
    admission = <AdmissionQueueState>server.admission
    table = <RequestTableState>server.table
    channel = <H1ChannelState>self.stream
    if (
        admission._queue or server.detached or is_waiting(channel)
        or not server.keeps_alive
    ):
        return False
    ends += 1
    self.state = "ended"
    admission.running -= 1
    if server.metrics is not None:
        count_ended(self, server.metrics, (<GreenletHubState>server.hub).ended_at)
    if table.observers:
        table.observe(self.record())
    if table.watcher is not None:
        watch_ended(self, table, (<GreenletHubState>server.hub).ended_at)
    if server.times is not None:
        server.times.ended(self)
    table.exchanges.discard(self)
    h1 = channel._h1
    if not server.keeps_alive or server.detached:  # by an observer
        if server.detached:
            server._forget(self)
        if server.shutdown.stopping:
            server.shutdown.complete_if_idle()
        channel.ended(self)
    elif (
        channel.exchange is self and channel.state is "serving" and h1.persistent
        and h1.sending is "complete" and not channel.reading_paused and not h1.pending
        and channel._inbox is rooms.empty_inbox and not h1.has_unread
        and channel._fd >= 0  # else TLS may release memory
    ):
        channel.exchange = None
        channel.state = "idle"
        channel._time = (<GreenletHubState>server.hub).ended_at
    elif (
        channel.listening is not None and channel.exchange is self
        and channel.state is "serving" and h1.sending is "last" and not h1.has_unread
        and not (<RequestHeadState>self.head).keep_alive
        and channel._inbox is rooms.empty_inbox
    ):
        close_connection(channel)  # as `_close_behind`
    else:
        channel.ended(self)
    return True


cdef inline bint is_read(object body) noexcept:
    """Return whether a request body needs no care at the end of the request."""
    return type(body) is rooms.RequestBody and (<RequestBodyState>body).complete and (
        not (<RequestBodyState>body).held and (<RequestBodyState>body).error is None)


cdef inline bint is_flushed(ErrorsState errors) except -1:
    return not errors.partial_line and not errors.partial_output


cdef inline bint is_waiting(H1ChannelState channel) except -1:
    """Return whether a task is parked in a send."""
    if type(channel._output) is rooms.SocketOutput:
        return (<SocketOutputState>channel._output).waiting is not None
    return channel.listening is None and channel._output.waiting is not None


cdef inline bint is_socket(H1ChannelState channel) noexcept:
    """Return whether a lane may send to the descriptor."""
    return channel._fd >= 0 and (
        channel.listening is not None or type(channel._output) is rooms.SocketOutput)


cdef bytes read_whole(InputState self, object size):
    """`Input.read`: the first read of a body that came with the head; else None."""
    global reads
    cdef RequestBodyState body
    cdef Py_ssize_t wanted = -1, held
    cdef bytes piece
    if self._stretch_end >= 0 or type(self._source) is not rooms.RequestBody:
        return None
    body = <RequestBodyState>self._source
    piece = body.piece
    if piece is None or not body.held or body.error is not None or (
        rooms.tasks_of_threads or body._stream.reading_paused
    ):
        return None
    if size is not None:
        if type(size) is not int or not -1 << 62 < size < 1 << 62 or size == 0:
            return None
        wanted = PyLong_AsSsize_t(size)
    reads += 1
    held = PyBytes_GET_SIZE(piece)
    body.piece, body.held = None, 0
    self._stretch_end = 0
    if 0 < wanted < held:
        self._buffered, self._start = piece, wanted
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(piece), wanted)
    self._ended = wanted != held
    return piece
