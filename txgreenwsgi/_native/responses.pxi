# Lanes of responses: `serve` and `StartResponse` in `_wsgi`, `ResponseHead` and
# `Connection` in `_http`, `Exchange`, `H1Channel` and `SocketOutput`.

cpdef serve(application, environ, sink):
    """Call `application` and send its response to `sink`. May park."""
    cdef StartResponseState start = new(rooms.StartResponse)
    start._sink = sink
    send_response(application, start, application(environ, start), sink)


cdef int send_response(
    object application, StartResponseState start, object blocks, object sink
) except -1:
    """Send what an application has returned."""
    global serves, iterations
    cdef object block = None
    if type(blocks) is list and len(<list>blocks) == 1:
        block = (<list>blocks)[0]
    elif type(blocks) is tuple and len(<tuple>blocks) == 1:
        block = (<tuple>blocks)[0]
    if type(block) is bytes and block and start.head is not None and not start.sent:
        serves += 1
        start.sent = True
        if type(sink) is not rooms.Exchange or not respond(sink, start.head, block, True):
            sink.respond(start.head, block)
    elif type(sink) is rooms.Exchange and only_iterable(blocks) and (
        type(blocks) is not rooms.FileWrapper
    ):
        iterations += 1
        iterate(<ExchangeState>sink, start, blocks)
    else:
        rooms.finish_response(application, start, blocks, sink)
    return 0


cdef int iterate(ExchangeState sink, StartResponseState start, object blocks) except -1:
    """`_finish_response` of an iterable without a length, such as a generator."""
    try:
        if sink.error is not None:
            raise sink.error
        sink.iterating = True
        for block in blocks:
            if type(block) is not bytes:
                block = rooms.as_bytes(block)
            if not block:
                sink.turn()
            elif not start.sent:
                head = start.head_to_send()
                start.sent = True
                if not respond(sink, head, block, False):
                    sink.begin(head, None, block)
            elif not write_block(sink, block):
                sink._py_write(block)
            if sink.bodiless:
                break
        if not start.sent:
            head = start.head_to_send()
            start.sent = True
            sink.begin(head, 0, b"")
        if not finish(sink):
            sink.finish()
    except BaseException:
        rooms.close_response(blocks, sink)
        raise
    close = getattr(blocks, "close", None)
    if close is not None:
        if sink.error is not None:
            sink.end_iteration()
        sink.iterating = False
        close()
    return 0


# Encoded fields by the identity of their name and value, which are often constants of
# the application: found without a hash of both.
cdef enum:
    FIELDS = 512
cdef PyObject* field_names[FIELDS]
cdef PyObject* field_values[FIELDS]
cdef PyObject* field_lines[FIELDS]


cdef object encoded_field(object field):
    """`encode_field`, with its cache."""
    cdef PyObject* name = PyTuple_GET_ITEM(field, 0)
    cdef PyObject* value = PyTuple_GET_ITEM(field, 1)
    cdef size_t slot = ((<size_t>name >> 4) * 31 + (<size_t>value >> 4)) % FIELDS
    cdef PyObject* found
    if field_names[slot] is name and field_values[slot] is value:
        return <object>field_lines[slot]
    found = PyDict_GetItem(rooms.encoded_fields, field)
    if found is NULL:
        return rooms.encode_field(*field)
    Py_INCREF(<object>name)
    Py_INCREF(<object>value)
    Py_INCREF(<object>found)
    Py_XDECREF(field_names[slot])
    Py_XDECREF(field_values[slot])
    Py_XDECREF(field_lines[slot])
    field_names[slot], field_values[slot], field_lines[slot] = name, value, found
    return <object>found


cdef ResponseHeadState response_head(object status, object fields):
    """`ResponseHead.__init__`; None unless all fields are simple."""
    cdef ResponseHeadState head
    cdef PyObject* found
    cdef object field, kind, encoded
    cdef list lines
    if type(status) is not str or type(fields) is not list:
        return None
    found = PyDict_GetItem(rooms.encoded_statuses, status)
    if found is NULL:
        return None
    head = new(rooms.ResponseHead)
    head.code = <object>PyTuple_GET_ITEM(<object>found, 1)
    head.dropped = NO_ARGUMENTS
    head._lines = lines = [<object>PyTuple_GET_ITEM(<object>found, 0)]
    for field in <list>fields:
        # Not a subclass: it could answer the lookup with any code.
        if type(field) is not tuple or PyTuple_GET_SIZE(field) != 2 or (
            type(<object>PyTuple_GET_ITEM(field, 0)) is not str
            or type(<object>PyTuple_GET_ITEM(field, 1)) is not str
        ):
            return None
        encoded = encoded_field(field)
        kind = <object>PyTuple_GET_ITEM(encoded, 1)
        if kind is not None:
            if type(kind) is int and head.code != 204 and head.content_length is None:
                head.content_length = kind
            elif type(kind) is str and kind == "date":
                head._has_date = True
            elif type(kind) is str and kind == "server":
                head._has_server = True
            else:
                return None
        lines.append(<object>PyTuple_GET_ITEM(encoded, 0))
    return head


cdef bint needs_headers(ExchangeState self) except -1:
    """Return whether the record needs the lines that `encode` writes."""
    return "response_headers" in (
        <RequestTableState>(<ApplicationServerState>self.server).table).needs


cdef bint respond(ExchangeState self, object given, object data, bint whole) except -1:
    """`Exchange.respond`, `H1Channel.start` and `finish`, `Connection.send_head`.

    `Exchange.begin` if it is unknown whether this block is the `whole` body.
    """
    global responses
    cdef ResponseHeadState head
    cdef H1ChannelState channel
    cdef ConnectionState h1
    cdef RequestHeadState request
    cdef CommonFieldsState common
    cdef char* out = OUT
    cdef Py_ssize_t length, size, left = 0
    cdef double time
    cdef bint close
    if (
        type(given) is not rooms.ResponseHead or type(data) is not bytes
        or self.state is not "running" or type(self.stream) is not rooms.H1Channel
        or not is_usual(self) or (self.details is not None and needs_headers(self))
    ):
        return False
    head = <ResponseHeadState>given
    channel = <H1ChannelState>self.stream
    h1 = channel._h1
    request = <RequestHeadState>self.head
    length = PyBytes_GET_SIZE(data)
    if head.content_length is not None:
        left = PyLong_AsSsize_t(head.content_length) - length
        if left < 0 or (left and whole):
            return False
    elif not whole:
        left = -1
    if (
        length >= LONG_BLOCK_BYTES or head.code == 204 or head.code == 304
        or (left and (channel._fd < 0 or channel.output.may_buffer))
        or channel.exchange is not self or channel.state is not "serving"
        or not (<ApplicationServerState>self.server).keeps_alive or not h1.persistent
        or h1.sending is not "awaited" or h1._request is not request
        or request.method == "HEAD" or request.version != "HTTP/1.1"
        or (self.body is not rooms.no_body and not self.body.complete)
        or type(h1._common) is not rooms.CommonFields or is_waiting(channel)
    ):
        return False
    common = <CommonFieldsState>h1._common
    if common.adds_fields:
        return False
    time = clock(CLOCK_REALTIME)
    if not common._date_valid_from <= time < common._date_valid_until:
        common.date_and_server()
    size = length + 128 + len(common._server_line) + len(common._date_line)
    for line in head._lines:
        size += len(<bytes?>line)
    if size > OUT_BYTES:
        return False
    responses += 1
    close = not request.keep_alive or head.ends_connection
    for line in head._lines:
        out = put(out, <bytes>line)
    if not head._has_server:
        out = put(out, common._server_line)
    if not head._has_date:
        out = put(out, common._date_line)
    if left < 0:
        out = put(out, b"Transfer-Encoding: chunked\r\n")
    elif head.content_length is None:
        out = put_number(put(out, b"Content-Length: "), length, 10)
        out = put(out, b"\r\n")
    if close:
        h1.persistent = False
        out = put(out, b"Connection: close\r\n")
    out = put(out, b"\r\n")
    if left < 0:
        out = put_chunk(out, <bytes>data)
    else:
        out = put(out, <bytes>data)
    self.state = "responding"
    self.code = head.code
    self.bytes_sent, self._left = length, left
    h1.framing = "chunked" if left < 0 else "length"
    if left:
        h1.sending = "body"
    else:
        h1.sending = "last" if close else "complete"
        h1._request = None
    if not whole:
        if (<ApplicationServerState>self.server).metrics is not None:
            (<ApplicationServerState>self.server).metrics.begun(self)
        send(channel, OUT, out - OUT)
        if left:
            yield_if_due(self, channel)
        return True
    if not send(channel, OUT, out - OUT):
        if self.state is not "responding":
            self._refuse_write()
        channel.finish()
        if self.state is not "responding":
            return True
    self.state = "complete"
    return True


cdef bint finish(ExchangeState self) except -1:
    """`Exchange.finish` of a response whose blocks `write_block` has sent."""
    cdef H1ChannelState channel
    cdef ConnectionState h1
    if (
        self.state is not "responding" or self._left > 0
        or type(self.stream) is not rooms.H1Channel
    ):
        return False
    channel = <H1ChannelState>self.stream
    h1 = channel._h1
    if channel.exchange is not self or channel.state is not "serving" or (
        is_waiting(channel)
    ):
        return False
    if h1.sending is "body":
        h1.sending = "complete" if h1.persistent else "last"
        h1._request = None
        if h1.framing is "chunked":
            send(channel, b"0\r\n\r\n", 5)
    if self.state is "responding":
        self.state = "complete"
    return True


cdef inline int yield_if_due(ExchangeState self, H1ChannelState channel) except -1:
    """`Exchange._yield_if_due`, between two blocks of a body."""
    cdef GreenletHubState hub = (
        <GreenletHubState>(<ApplicationServerState>self.server).hub)
    if now(hub.seconds) - hub.resumed_at > hub.slice_seconds:
        hub.yielded_at = hub.resumed_at
        channel.output.turn()
    return 0


cdef inline char* put_chunk(char* out, bytes block) noexcept:
    """Write a block as a chunk (RFC 9112 section 7.1); return its end."""
    out = put(put_number(out, PyBytes_GET_SIZE(block), 16), b"\r\n")
    return put(put(out, block), b"\r\n")


cdef inline char* put(char* out, bytes part) noexcept:
    """Copy bytes to `out`; return the end of the copy."""
    memcpy(out, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))
    return out + PyBytes_GET_SIZE(part)


cdef bint send(H1ChannelState channel, char* data, Py_ssize_t size) except -1:
    """`Output.send`. Return False if other code has run, because it may have parked."""
    cdef Py_ssize_t sent
    # The descriptor is open: a channel that has lost its connection is not serving.
    if not is_socket(channel):
        channel.output.send(PyBytes_FromStringAndSize(data, size))
        return False
    sent = c_send(channel._fd, data, size, MSG_NOSIGNAL)
    if sent == size:
        return True
    if sent < 0:
        if errno != EAGAIN and errno != EINTR:
            try:
                PyErr_SetFromErrno(OSError)
            except OSError as error:
                raise channel.output._lost() from error
        sent = 0
    rest = memoryview(PyBytes_FromStringAndSize(data + sent, size - sent))
    channel.output._send_rest(rest)
    return False


cdef bint write_block(ExchangeState self, object data) except -1:
    """`Exchange.write`, `H1Channel.data` and `Connection.send_data`."""
    global blocks
    cdef H1ChannelState channel
    cdef char* out
    cdef Py_ssize_t length
    if (
        type(data) is not bytes or self.state is not "responding"
        or type(self.stream) is not rooms.H1Channel or not is_usual(self)
    ):
        return False
    channel = <H1ChannelState>self.stream
    length = PyBytes_GET_SIZE(data)
    if (
        channel.exchange is not self or channel.state is not "serving"
        or not is_socket(channel) or is_waiting(channel)
        or (channel._output is not None
            and (<SocketOutputState>channel._output).may_buffer)
        or channel._h1.sending is not "body" or 0 <= self._left < length
        or length >= LONG_BLOCK_BYTES
    ):
        return False
    blocks += 1
    if self._left >= 0:
        self._left -= length
    self.bytes_sent += length
    if channel._h1.framing is "chunked":
        out = put_chunk(OUT, <bytes>data)
        send(channel, OUT, out - OUT)
    else:
        send(channel, PyBytes_AS_STRING(data), length)
    yield_if_due(self, channel)
    return True
