# Lanes of requests: `H1Channel` in `_server/h1_channel.py`, `RequestParser`, `KnownLines`
# and `request_head` in `_http`. Bytes become a head and an exchange.

# Facts about the limits on heads and the cache of lines that were seen last.
cdef object last_head_limits = None, last_lines = None
cdef Py_ssize_t head_size, head_fields, target_size
cdef object known_fields, known_requests, known_paths


cdef int note_parser(object limits, object lines) except -1:
    cdef int slot
    global last_head_limits, last_lines, head_size, head_fields, target_size
    global known_fields, known_requests, known_paths
    last_head_limits = last_lines = None
    head_size, head_fields, target_size = limits.size, limits.fields, limits.target
    known_fields, known_requests = lines._fields, lines._request_lines
    known_paths = lines._request_lines._paths
    for slot in range(SLOTS):
        Py_XDECREF(seen_lines[slot])
        Py_XDECREF(seen_values[slot])
        seen_lines[slot] = seen_values[slot] = NULL
    forget_fields()
    last_head_limits, last_lines = limits, lines
    return 0


def forget_fields():
    """Release the kept field lines: their templates refer to a server."""
    cdef int slot
    cdef PyObject* fields
    for slot in range(KEPT):
        fields = kept_fields[slot]
        kept_fields[slot], seen_fields[slot] = NULL, 0
        Py_XDECREF(fields)


# Lines that were found in the cache, and their values: found again without making an
# object. A slot belongs to one cache: a known request line is not a known field.
cdef enum:
    SLOTS = 1024
    # Lines that `read_head` examines, and those that it leaves to Python.
    HOST = 1
    CONNECTION = 2
    LENGTH = 4
    REFUSED = 8
cdef int known_kind  # of the line that `known` has found
cdef int seen_kinds[SLOTS]
cdef dict kinds = {
    "HTTP_HOST": HOST, "HTTP_CONNECTION": CONNECTION, "CONTENT_LENGTH": LENGTH,
    # Dropped fields, and those that only request_head() understands.
    "": REFUSED, "HTTP_TRANSFER_ENCODING": REFUSED, "HTTP_EXPECT": REFUSED,
}
cdef PyObject* seen_in[SLOTS]
cdef PyObject* seen_lines[SLOTS]
cdef PyObject* seen_values[SLOTS]
# Field lines that are kept, and the hashes of those that were received last.
cdef enum:
    KEPT = 256
    KEPT_BYTES = 2048  # longer ones are not kept
cdef PyObject* kept_fields[KEPT]
cdef size_t seen_fields[KEPT]


cdef PyObject* known(object cache, char* at, Py_ssize_t size) except? NULL:
    """Return the value of a line in the cache, as a borrowed reference; else NULL."""
    global known_kind
    cdef size_t slot = hash_of(at, size) % SLOTS
    cdef PyObject* seen = seen_lines[slot]
    cdef PyObject* value
    if (
        seen is not NULL
        and seen_in[slot] is <PyObject*>cache
        and PyBytes_GET_SIZE(<object>seen) == size
        and memcmp(PyBytes_AS_STRING(<object>seen), at, size) == 0
    ):
        known_kind = seen_kinds[slot]
        return seen_values[slot]
    line = PyBytes_FromStringAndSize(at, size)
    value = PyDict_GetItem(cache, line)
    if value is not NULL:
        Py_INCREF(line)
        Py_INCREF(<object>value)
        Py_XDECREF(seen_lines[slot])
        Py_XDECREF(seen_values[slot])
        seen_lines[slot], seen_values[slot] = <PyObject*>line, value
        seen_in[slot] = <PyObject*>cache
        known_kind = seen_kinds[slot] = kind_of(cache, <object>value)
    return value


cdef int kind_of(object cache, object value) except -1:
    """Return what `read_head` must know of a line, for the value in its cache."""
    if cache is known_fields:
        return kinds.get(value[0], 0)
    # A request line: (method, target, path, query, version, authority).
    if cache is known_requests and (value[4] != "HTTP/1.1" or value[5] is not None):
        return REFUSED
    return 0


cdef object read_channel(H1ChannelState self, Chain chain):
    """`H1Channel.doRead`."""
    cdef ssize_t got
    if self.state is not "idle" or self._fd < 0:
        return self._py_doRead()
    got = c_recv(self._fd, IN, IN_BYTES, 0)
    if got < 0:
        return None if errno == EAGAIN or errno == EINTR else rooms.connection_lost
    if got == 0:
        return rooms.connection_done
    if self.listening is not None and self.ends is None:
        find_ends(self)
    if not feed(self, IN, got, chain):
        self._py_dataReceived(PyBytes_FromStringAndSize(IN, got))
    return None


cdef bint feed(
    H1ChannelState self, char* data, Py_ssize_t size, Chain chain
) except -1:
    """`H1Channel.dataReceived` of one whole request; return False for anything else."""
    cdef ConnectionState h1 = self._h1
    cdef ApplicationServerState server
    cdef RequestHeadState head
    cdef RequestBodyState body
    cdef ExchangeState exchange
    cdef object given = rooms.no_body
    cdef Span span
    cdef char* end
    cdef Py_ssize_t length
    if (
        type(self) is not rooms.H1Channel or self.state is not "idle" or self._pumping
        or self._inbox is not rooms.empty_inbox or h1.receiving is not "head"
        or h1.pending or h1.has_unread or h1._leading
        or (h1.sending is not "complete" and h1.sending is not "idle")
        or type(self.server) is not rooms.ApplicationServer
    ):
        return False
    server = <ApplicationServerState>self.server
    if type(server.hub) is not rooms.GreenletHub:
        return False
    if h1._limits is not last_head_limits or h1._lines is not last_lines:
        note_parser(h1._limits, h1._lines)
    if server.limits is not last_limits:
        note_limits(server.limits)
    if not find_head(&span, data, data + min(size, head_size)):
        return False
    head = read_head(data, &span)
    if head is None:
        return False
    end = span.end
    length = head.content_length
    if end + 4 + length != data + size or (body_bytes and length > body_bytes):
        return False
    if length:
        given = body = new(rooms.RequestBody)
        body._stream, body.limits, body._length = self, server.limits, length
        body._pieces = rooms.no_pieces
        body._received = body.held = length
        body.complete = True
        body.piece = PyBytes_FromStringAndSize(end + 4, length)
    # RequestParser._read_head and _end
    h1._keep_alive = head.keep_alive
    if not head.keep_alive:
        h1.receiving = "ended"
    # H1Channel._begin and Connection.begin
    self.state = "serving"
    if self.ends is None:
        self._find_ends()
    h1.sending = "awaited"
    h1._request = head
    self.exchange = exchange = new_exchange(self, server, head, given)
    if not admit(exchange, chain):
        exchange._py_admit()
    return True


cdef struct Span:
    # Ends of the request line and of the last line, each followed by CRLF.
    char* line_end
    char* end
    # The Cookie line and its end; NULL if there is none, or more than one.
    char* cookie
    char* cookie_end


cdef bint find_head(Span* span, char* at, char* end) noexcept:
    """Find the lines of a head; return False if it is incomplete."""
    cdef char* line = at
    cdef int cookies = 0
    span.line_end = span.cookie = span.cookie_end = NULL
    while True:
        at = <char*>memchr(at, 13, end - at)
        if at is NULL or end - at < 4:
            return False
        if at[1] != 10:
            at += 1
            continue
        if span.line_end is NULL:
            span.line_end = at
        elif at - line >= 8 and (line[0] | 32) == 99 and (
            memcmp(line + 1, b"ookie: ", 7) == 0
        ):
            cookies += 1
            span.cookie, span.cookie_end = line, at
        if at[2] == 13 and at[3] == 10:
            span.end = at
            if cookies > 1:
                span.cookie = span.cookie_end = NULL
            return True
        line = at = at + 2


cdef RequestHeadState read_head(char* at, Span* span):
    """`KnownLines.read_head`; None unless all lines are known and simple."""
    global heads
    cdef RequestHeadState head
    cdef FieldLines fields
    cdef PyObject* found = known(known_requests, at, span.line_end - at)
    cdef tuple request = (
        <tuple>found if found is not NULL else with_other_query(at, span.line_end))
    cdef str value = None
    if request is None or (found is not NULL and known_kind == REFUSED) or (
        PyBytes_GET_SIZE(<object>PyTuple_GET_ITEM(request, 1)) > target_size
    ):
        return None
    if span.cookie is not NULL:
        value = cookie(span.cookie + 8, span.cookie_end)
        if value is None:
            return None
    fields = fields_of(span)
    if fields is None:
        return None
    heads += 1
    head = new(rooms.RequestHead)
    head.method, head.target, head.path, head.query, _, _ = request
    head.version = "HTTP/1.1"  # the same object: `respond` compares it
    head.keep_alive, head.content_length = fields.keep_alive, fields.content_length
    head.fields, head.cookie, head.upgrade = fields, value, ""
    if found is not NULL:
        head.line = request
    return head


cdef FieldLines fields_of(Span* span):
    """Return the field lines of a head; None unless they are known and simple."""
    cdef char* at = span.line_end + 2
    cdef char* behind = span.cookie_end
    # The lines before the Cookie, or all of them, and the rest.
    cdef Py_ssize_t before = -1, first = max(span.end - at, 0), rest = 0
    cdef size_t number, slot
    cdef FieldLines fields
    if span.cookie is not NULL:
        before = first = span.cookie - at
        rest = span.end - behind
    number = hash_of(at, first) * 31 + hash_of(behind, rest)
    slot = number % KEPT
    if kept_fields[slot] is not NULL:
        fields = <FieldLines>kept_fields[slot]
        if (
            fields.before == before and PyBytes_GET_SIZE(fields.lines) == first + rest
            and memcmp(PyBytes_AS_STRING(fields.lines), at, first) == 0
            and (not rest or memcmp(
                PyBytes_AS_STRING(fields.lines) + first, behind, rest) == 0)
        ):
            return fields
    fields = read_fields(at, span)
    if fields is None or first + rest > KEPT_BYTES:
        return fields
    if seen_fields[slot] == number:  # the second time in a row
        fields.before, fields.kept = before, True
        fields.lines = PyBytes_FromStringAndSize(at, first)
        if rest:
            fields.lines += PyBytes_FromStringAndSize(behind, rest)
        Py_INCREF(fields)
        Py_XDECREF(kept_fields[slot])
        kept_fields[slot] = <PyObject*>fields
    seen_fields[slot] = number
    return fields


cdef FieldLines read_fields(char* at, Span* span):
    """Read the field lines of a head, except the Cookie."""
    cdef FieldLines fields = FieldLines.__new__(FieldLines)
    cdef PyObject* found
    cdef dict variables = {}
    cdef Py_ssize_t count = 0
    cdef char* stop
    cdef int seen = 0
    cdef str options
    while at < span.end:
        count += 1
        if at is span.cookie:
            at = span.cookie_end + 2
            continue
        stop = line_end(at, span.end)
        found = known(known_fields, at, stop - at)
        if found is NULL:
            return None
        seen |= known_kind
        PyDict_SetItem(variables, <object>PyTuple_GET_ITEM(<object>found, 0),
                       <object>PyTuple_GET_ITEM(<object>found, 1))
        at = stop + 2
    # Repeated fields have one variable.
    if len(variables) + (span.cookie is not NULL) != count or count > head_fields or (
        not seen & HOST or seen & REFUSED
        or (span.cookie is not NULL and "HTTP_COOKIE" in variables)
    ):
        return None
    fields.keep_alive = True
    if seen & CONNECTION:
        options = <str>PyDict_GetItem(variables, "HTTP_CONNECTION")
        if options != "keep-alive":
            options = options.lower()
            fields.keep_alive = options != "close"
            if fields.keep_alive and options != "keep-alive":
                return None
    fields.content_length = 0
    if seen & LENGTH:
        found = PyDict_GetItem(variables, "CONTENT_LENGTH")
        if len(<str>found) > 18:  # _LENGTH_DIGITS
            return None
        fields.content_length = int(<str>found)
    fields.variables = variables
    return fields


cdef inline char* line_end(char* at, char* end) noexcept:
    """Return the end of the line that begins at `at`: CRLF, or `end`."""
    cdef char* stop = <char*>memchr(at, 13, end - at)
    while stop is not NULL and stop[1] != 10:
        stop = <char*>memchr(stop + 1, 13, end - stop - 1)
    return end if stop is NULL else stop


cdef str cookie(char* at, char* end):
    """`read_value`: the value of a Cookie; None if it is invalid."""
    cdef char* byte = at
    while byte < end:
        if not IN_VALUE[<unsigned char>byte[0]]:
            return None
        byte += 1
    while at < end and (at[0] == 32 or at[0] == 9):
        at += 1
    while at < end and ((end - 1)[0] == 32 or (end - 1)[0] == 9):
        end -= 1
    return PyUnicode_DecodeLatin1(at, end - at, NULL)


cdef tuple with_other_query(char* at, char* end):
    """`with_other_query`: a known path with another query; None for others."""
    cdef char* mark = <char*>memchr(at, 63, end - at)
    cdef char* byte
    cdef PyObject* found
    cdef tuple example
    cdef Py_ssize_t skipped
    if mark is NULL or end - mark < 10 or memcmp(end - 9, b" HTTP/1.1", 9):
        return None
    found = known(known_paths, at, mark - at)
    if found is NULL or <object>found is None:
        return None
    example = <tuple>found
    end -= 9
    byte = mark + 1
    while byte < end:
        if not IN_TARGET[<unsigned char>byte[0]]:
            return None
        byte += 1
    skipped = len(<str>PyTuple_GET_ITEM(example, 0)) + 1
    return (
        <object>PyTuple_GET_ITEM(example, 0),
        PyBytes_FromStringAndSize(at + skipped, end - at - skipped),
        <object>PyTuple_GET_ITEM(example, 2),
        PyUnicode_DecodeLatin1(mark + 1, end - mark - 1, NULL), "HTTP/1.1", None,
    )
