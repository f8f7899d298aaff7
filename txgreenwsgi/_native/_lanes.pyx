# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, auto_pickle=False, annotation_typing=False, cdivision=True
# distutils: define_macros=_GNU_SOURCE=1
"""The compiled fast path: state classes, and lanes for the common case of a request.

A *state class* holds the attributes of a class of the server in C. The class itself is
Python and derives from it (`class Exchange(lanes.ExchangeState)`), so that every rule
is written once. A *lane* is the compiled twin of a method: it serves the common case,
and calls the Python method for any other, before it has changed anything. `with_lanes`
puts the lanes in the place of the methods, which remain as `_py_NAME`.

Read each lane beside the method of the same name. See
`docs/decisions/0036-compiled-fast-path.md`. This file knows the attributes of the rooms
above and must never import them: they hand over what a lane needs (`lend`).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy, PyDict_SetItem, PyDict_Update
from cpython.exc cimport PyErr_SetFromErrno
from cpython.long cimport PyLong_AsSsize_t
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memchr, memcmp, memcpy

import os
import select
from collections import deque

import greenlet as greenlet_module

cdef extern from *:
    """
    #include <sys/types.h>
    #include <sys/socket.h>
    #include <stdint.h>
    #include <string.h>
    #include <time.h>
    #include <greenlet/greenlet.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    #ifdef __APPLE__
    #define TXG_MONOTONIC CLOCK_UPTIME_RAW  /* what time.monotonic() reads */
    #else
    #define TXG_MONOTONIC CLOCK_MONOTONIC
    #endif
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <unistd.h>
    #ifdef __linux__
    #include <sys/epoll.h>
    #define txg_accept(fd, address, size) \
        accept4(fd, (struct sockaddr *)(address), size, SOCK_NONBLOCK | SOCK_CLOEXEC)
    #else  /* without epoll, `Sockets` and its lanes are not used */
    struct epoll_event { uint32_t events; union { int fd; } data; };
    #define EPOLLIN 1
    #define EPOLL_CTL_ADD 1
    #define EPOLL_CTL_DEL 2
    #define epoll_wait(epoll, events, size, timeout) (-1)
    #define epoll_ctl(epoll, change, fd, event) (-1)
    #define txg_accept(fd, address, size) (-1)
    #endif
    #define txg_own_address(fd, address, size) \
        getsockname(fd, (struct sockaddr *)(address), size)
    static inline double txg_clock(clockid_t clock) {
        struct timespec at;
        clock_gettime(clock, &at);
        return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
    }
    static inline size_t txg_hash(const char *text, size_t size) {
        uint64_t hash = size, word;
        for (; size >= 8; text += 8, size -= 8) {
            memcpy(&word, text, 8);
            hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
            hash ^= hash >> 32;
        }
        for (word = 0; size; size--) word = word << 8 | (unsigned char)*text++;
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        return (size_t)(hash ^ hash >> 32);
    }
    static inline int txg_only_iterable(PyObject *thing) {
        PyTypeObject *of = Py_TYPE(thing);
        return of->tp_iter && !(of->tp_as_sequence && of->tp_as_sequence->sq_length)
            && !(of->tp_as_mapping && of->tp_as_mapping->mp_length);
    }
    static inline int txg_import_greenlet(void) {
        PyGreenlet_Import();
        return _PyGreenlet_API == NULL ? -1 : 0;
    }
    static inline PyObject *txg_current(void) { return (PyObject *)PyGreenlet_GetCurrent(); }
    static inline PyObject *txg_new(PyObject *run) { return (PyObject *)PyGreenlet_New(run, NULL); }
    static inline PyObject *txg_switch(PyObject *to) {
        return PyGreenlet_Switch((PyGreenlet *)to, NULL, NULL);
    }
    static inline int txg_set_parent(PyObject *of, PyObject *parent) {
        return PyGreenlet_SetParent((PyGreenlet *)of, (PyGreenlet *)parent);
    }
    """
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        unsigned int events
        epoll_data_t data
    struct in_addr:
        unsigned int s_addr
    struct sockaddr_in:
        in_addr sin_addr
        unsigned short sin_port
    ctypedef unsigned int socklen_t
    int epoll_wait(int epoll, epoll_event* events, int size, int timeout)
    int epoll_ctl(int epoll, int change, int fd, epoll_event* event)
    int EPOLLIN, EPOLL_CTL_ADD, EPOLL_CTL_DEL, AF_INET, SHUT_RDWR
    int accept4 "txg_accept"(int fd, sockaddr_in* address, socklen_t* size)
    int own_address "txg_own_address"(int fd, sockaddr_in* address, socklen_t* size)
    unsigned short ntohs(unsigned short number)
    int c_close "close"(int fd)
    int c_shutdown "shutdown"(int fd, int how)
    size_t hash_of "txg_hash"(const char* text, size_t size) noexcept
    double clock "txg_clock"(int which) noexcept
    bint only_iterable "txg_only_iterable"(object thing) noexcept
    int TXG_MONOTONIC, CLOCK_REALTIME, MSG_NOSIGNAL
    int import_greenlet "txg_import_greenlet"() except -1
    object current_greenlet "txg_current"()
    object new_greenlet "txg_new"(object run)
    object switch_to "txg_switch"(object to)
    int set_parent "txg_set_parent"(object of, object parent) except -1
    ssize_t c_recv "recv"(int fd, void* data, size_t size, int flags) nogil
    ssize_t c_send "send"(int fd, const void* data, size_t size, int flags) nogil
    # Without the care of PyDict_GetItem for an exception that was raised before.
    PyObject* PyDict_GetItem "PyDict_GetItemWithError"(object, object) except? NULL
    PyObject* PyCFunction_GetSelf(object function)
    object PyMethod_New(object function, object owner)
    object PyContext_Copy(object context)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    object PyContextVar_Set(object variable, object value)
    object PyObject_CallNoArgs(object function)
    object PyUnicode_DecodeLatin1(const char* data, Py_ssize_t size, const char* errors)
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef extern from *:
    """
    #ifndef TXGREENWSGI_SOURCE_HASH
    #define TXGREENWSGI_SOURCE_HASH ""
    #endif
    """
    const char* TXGREENWSGI_SOURCE_HASH

#: Incremented with each change of the interface to the Python files.
INTERFACE = 1
#: The hash of the source files when this was compiled (tools/native_extension.py).
SOURCE_HASH = TXGREENWSGI_SOURCE_HASH.decode()

# Its C interface has been the same since version 1; the header has no version.
if not greenlet_module.__version__.startswith("3."):
    raise ImportError(f"greenlet 3 is needed, not {greenlet_module.__version__}")
import_greenlet()

cdef enum:
    IN_BYTES = 65536  # _READ_BYTES of the channel
    OUT_BYTES = 65536  # a head and its block
    LONG_BLOCK_BYTES = 16384  # as in h1.py: longer blocks are not copied

# Never in use across a call of Python code.
cdef char IN[IN_BYTES]
cdef char OUT[OUT_BYTES]
# Bytes that are allowed in the value of a field, and in a target (fields.py, target.py).
cdef char IN_VALUE[256]
cdef char IN_TARGET[256]
cdef int _byte
for _byte in range(256):
    IN_VALUE[_byte] = _byte == 9 or (_byte >= 32 and _byte != 127)
    IN_TARGET[_byte] = 33 <= _byte <= 126 and _byte != 35

cdef tuple NO_ARGUMENTS = ()
cdef object EPOLL = getattr(select, "epoll", None), BUILTIN = type(len)
cdef long long heads, starts, serves, iterations, responses, blocks, ends, polls, reads
cdef long long accepts, closes


def counts():
    """Return how often each lane was taken so far, by name."""
    return {"accept": accepts, "block": blocks, "close": closes, "end": ends,
            "head": heads, "iterate": iterations, "poll": polls, "read": reads,
            "response": responses, "serve": serves, "start": starts}


cdef class Lent:
    """What the rooms hand over, by name."""

    # Classes with lanes; set by `with_lanes`.
    cdef public type ApplicationServer, AutomaticRoutes, CommonFields, Errors, Exchange
    cdef public type FileWrapper, GreenletHub, GreenSite, H1Channel, Input, RequestBody
    cdef public type RequestHead, ResponseHead, SocketOutput, Sockets, StartResponse, Task
    cdef public type ThreadRunner, _ListeningSocket, tcp_server
    # The namespaces of modules whose variables change, and tables.
    cdef public dict running, loops, greenlets, sockets, tasks_of_threads
    cdef public dict encoded_fields, encoded_statuses
    # Constants and functions.
    cdef public object no_body, no_pieces, no_contexts, empty_inbox, current_errors
    cdef public double fast_seconds
    cdef public object connection_done, connection_lost, serve, swap_state, running_loop
    cdef public object recorded, first_reserved, Ends, wildcards
    cdef public object end_child, log_failure, raised, finish_response, note_request
    cdef public object as_bytes, close_response, encode_field
    # The functions of methods that are in each environ.
    cdef public object client_disconnected, set_request_timeout, stopping
    cdef public object send_early_hints


cdef Lent rooms = Lent()


def lend(**objects):
    """Hand over constants and functions that a lane needs."""
    for name, value in objects.items():
        setattr(rooms, name, value)


def lent(function):
    """Hand over a function that a lane needs. A decorator."""
    setattr(rooms, function.__name__.strip("_"), function)
    return function


def with_lanes(cls):
    """Replace the methods of a class that have a lane, and let lanes make instances."""
    setattr(rooms, cls.__name__, cls)
    base, names = LANES.get(cls.__name__, (None, ()))
    for name in names:
        setattr(cls, f"_py_{name.strip('_')}", cls.__dict__[name])
        setattr(cls, name, base.__dict__[name])
    return cls


def with_lane(function):
    """Return the lane of a function, which hands the other cases to Python itself."""
    setattr(rooms, function.__name__, globals()[function.__name__])
    return globals()[function.__name__]


def slots(base, names):
    """Return those of `names` for which a state class has no attribute."""
    return tuple(name for name in names if not hasattr(base, name) and not (
        name == "__weakref__" and base.__weakrefoffset__))


cdef inline object new(type cls):
    """Return an object of a class of the rooms, without calling `__init__`."""
    return (<PyTypeObject*>cls).tp_new(cls, <PyObject*>NO_ARGUMENTS, NULL)


@cython.final
cdef class SteadySeconds:
    """The clock of a reactor: the monotonic clock and an offset, in seconds."""

    cdef double offset

    def __call__(self):
        return clock(TXG_MONOTONIC) + self.offset


def steady_seconds(offset_to):
    """Return a clock that continues from `offset_to`, a time in seconds."""
    cdef SteadySeconds seconds = SteadySeconds.__new__(SteadySeconds)
    seconds.offset = offset_to - clock(TXG_MONOTONIC)
    return seconds


cdef inline double now(object seconds) except? -1:
    """Return the time of a reactor's clock."""
    if type(seconds) is SteadySeconds:
        return clock(TXG_MONOTONIC) + (<SteadySeconds>seconds).offset
    return PyObject_CallNoArgs(seconds)


# State classes. The class without "State" documents the attributes.

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
            start_task(self, <TaskState>task, None)
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
        if not admit(self, False):
            self._py_admit()

    def _start(self):
        if not start_exchange(self, False):
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
    cdef public long long _discarded
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
        return read_channel(self, False) if type(self) is rooms.H1Channel else self._py_doRead()

    def dataReceived(self, data):
        if type(data) is not bytes or not feed(
            self, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), False
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


# Tasks: `_run_tasks`, `Task` and `GreenletHub` in `_switching`.

def run_tasks():
    """Run one task after another; the main function of each greenlet of a task."""
    # A parked task keeps a copy of the C stack from here on, so the frames are small.
    cdef object home = run_next_task()
    while home is not None:
        switch_to(home)
        home = run_next_task()


cdef object run_next_task():
    """Run the current task; return the reactor greenlet, None to end the greenlet."""
    cdef TaskState task = <TaskState>PyDict_GetItem(rooms.running, "task")
    cdef GreenletHubState hub = <GreenletHubState>task.hub
    while task is not None:
        context = task._context
        # Not `gr_context`: greenlet takes a suspended greenlet without a Python frame
        # for a running one.
        PyContext_Enter(context)
        try:
            run_task(task)
        finally:
            PyContext_Exit(context)
        if <object>PyDict_GetItem(rooms.running, "task") is None:
            rooms.end_child(task.error)  # it has forked, and this is the child
        task = read_on(hub, task) if chained_task is task else None
    current = current_greenlet()
    if len(hub.spare_greenlets) < <Py_ssize_t>rooms.greenlets["SPARE_GREENLETS"] and (
        not hub.closed
    ):
        hub.spare_greenlets.append(current)
        return hub.reactor_greenlet
    set_parent(current, hub.reactor_greenlet)  # to which it switches at its end
    return None


cdef int run_task(TaskState task) except -1:
    """`Task.run` of a running task.

    The one C function with a handler of exceptions that a parked request keeps.
    """
    cdef bint failed = False
    try:
        call_function(task)
    except BaseException as error:
        failed = fail(task, error)
    if task._before_end is not None:
        failed = run_before_end(task) or failed
    if not failed:
        task.state = "finished"
    task.function = task._kwargs = None
    task._args = NO_ARGUMENTS
    return 0


cdef int call_function(TaskState task) except -1:
    """Call the function of a task, or run its request."""
    cdef ExchangeState exchange = task.exchange
    if exchange is not None:
        if not may_run(exchange):
            exchange._run()
        else:
            exchange.runs_here = True
            run_exchange(exchange, <ApplicationServerState>exchange.server)
    elif task._kwargs or task._args:
        task._result = task.function(*task._args, **(task._kwargs or {}))
    else:
        task._result = PyObject_CallNoArgs(task.function)
    return 0


cdef bint fail(TaskState task, object error) except -1:
    """Handle the error of a task; return whether it has failed, and not its request."""
    cdef ExchangeState exchange = task.exchange
    if exchange is not None and exchange.runs_here and not exchange._propagates():
        try:
            exchange._failed(error)
            return False
        except BaseException as another:
            error = another
    task._fail(error)
    return True


cdef bint run_before_end(TaskState task) except -1:
    """`Task._run_before_end`; return whether the task fails by it."""
    try:
        task._run_before_end()
    except BaseException as error:
        task._fail(error)
        return True
    return False


cdef int start_task(GreenletHubState hub, TaskState task, object note) except -1:
    """`GreenletHub.start` of a new task of an open hub."""
    global chain_note
    cdef bint begins_chain = (
        reading_hub is hub and chain_home is None
        and <object>PyDict_GetItem(rooms.running, "task") is None
    )
    hub.tasks.add(task)
    if hub.spare_greenlets:
        task.greenlet = hub.spare_greenlets.pop()
    else:
        task.greenlet = new_greenlet(run_tasks)
        if chain_home is not None:
            set_parent(task.greenlet, chain_home)
    task._parked_greenlet = task.greenlet
    if begins_chain:
        chain_note = note
    return run_turn(hub, task, begins_chain)


# A chain of tasks: a greenlet that has run a task from its start to its end reads the
# next ready connection, or accepts one, and runs its task, as if it were the reactor
# greenlet. A switch there and back costs a tenth of a short request. The chain ends when
# a task parks, or the time slice is over.
cdef GreenletHubState reading_hub = None  # while its connections are read or accepted
cdef SocketsState poller = None  # it has ready connections, and reads them now
cdef ListeningSocketState acceptor = None  # it accepts connections now
cdef object chain_home = None  # the reactor greenlet, which waits for the chain
cdef object chain_note = None  # of the server whose requests are in the chain
cdef object chain_contexts = None
cdef double chain_resumed_at
cdef TaskState chained_task = None  # None while the chain reads
cdef TaskState prepared_task = None


cdef TaskState read_on(GreenletHubState hub, TaskState task):
    """End a task, read the ready connections until one has a request, return its task."""
    global chained_task, prepared_task, chain_resumed_at
    cdef TaskState following
    cdef object greenlet = task.greenlet
    if rooms.running_loop() is not None or uses_hooks():
        return None  # `run_turn` restores the state of asyncio
    task._asyncio_state = chained_task = None
    PyDict_SetItem(rooms.running, "task", None)
    hub.context_tracker.contexts = chain_contexts
    if chain_note is not None:
        chain_note.running = 0
    end_turn(hub, task, chain_resumed_at)
    while prepared_task is None and (
        accept_next(acceptor, hub, True) if acceptor is not None
        else read_next(poller, hub, True)
    ):
        pass
    hub.reactor_greenlet = chain_home
    following, prepared_task = prepared_task, None
    if following is not None:
        following.greenlet = following._parked_greenlet = greenlet
        begin_turn(hub, following)
        chained_task, chain_resumed_at = following, hub.resumed_at
    return following


cdef inline bint uses_hooks() except -1:
    """Return whether a task may have left its hooks of asynchronous generators."""
    return <object>PyDict_GetItem(rooms.loops, "hooks_used") is True and (
        rooms.loops["generator_hooks"]() != rooms.loops["NO_HOOKS"])


cdef int begin_turn(GreenletHubState hub, TaskState task) except -1:
    """The part of `GreenletHub._switch_to` before the switch."""
    task.state = "running"
    hub.context_tracker.contexts = task._log_contexts
    hub.resumed_at = now(hub.seconds)
    if hub.on_turn is not None:
        hub.on_turn()
    PyDict_SetItem(rooms.running, "task", task)
    return 0


cdef int end_turn(GreenletHubState hub, TaskState task, double resumed_at) except -1:
    """The part of `GreenletHub._switch_to` for a task that has ended."""
    cdef double seconds
    hub.ended_at = now(hub.seconds)
    seconds = hub.ended_at - resumed_at
    if hub.on_long_turn is not None and (
        seconds > <double>rooms.greenlets["LONG_TURN_SECONDS"]
    ):
        hub.on_long_turn(task, seconds)
    return end_task(task)


cdef int run_turn(GreenletHubState hub, TaskState task, bint begins_chain) except -1:
    """`GreenletHub._switch_to`."""
    global chain_home, chain_contexts, chain_resumed_at, chained_task
    cdef double resumed_at
    cdef object log_contexts = hub.context_tracker.contexts
    cdef object asyncio_state = None
    cdef object previous = hub.reactor_greenlet
    cdef object interrupted = <object>PyDict_GetItem(rooms.running, "task")
    if rooms.running_loop() is not None or task._asyncio_state is not None:
        asyncio_state = rooms.swap_state(task._asyncio_state)
        begins_chain = False
    hub.reactor_greenlet = current_greenlet()
    if begins_chain:
        chain_home, chain_contexts = hub.reactor_greenlet, log_contexts
        chained_task = task
    begin_turn(hub, task)
    resumed_at = hub.resumed_at
    if begins_chain:
        chain_resumed_at = resumed_at
    try:
        switch_to(task._parked_greenlet)
    finally:
        if begins_chain:
            task, resumed_at = chained_task, chain_resumed_at  # None after its end
            chained_task = chain_home = chain_contexts = None
        PyDict_SetItem(rooms.running, "task", interrupted)
        if interrupted is not None:
            hub.reactor_greenlet = previous
        hub.context_tracker.contexts = log_contexts
        if task is not None:
            if asyncio_state is not None or rooms.running_loop() is not None or (
                uses_hooks()
            ):
                task._asyncio_state = rooms.swap_state(asyncio_state)
            else:
                task._asyncio_state = None
    if task is not None and (task.state is "finished" or task.state is "failed"):
        end_turn(hub, task, resumed_at)
    return 0


cdef int end_task(TaskState task) except -1:
    """`Task.notify_end`."""
    cdef ExchangeState exchange = task.exchange
    (<GreenletHubState>task.hub).tasks.discard(task)
    task.greenlet = task._parked_greenlet = task._context = task._interruptions = None
    task.pending_interruption = False
    task._log_contexts = rooms.no_contexts
    functions, task._on_end, task.exchange = task._on_end, None, None
    try:
        if exchange is not None and not end_exchange(exchange):
            exchange._task_ended()
    except Exception:
        rooms.log_failure("a callback for the end of a task failed")
    for function in functions or NO_ARGUMENTS:
        try:
            function()
        except Exception:
            rooms.log_failure("a callback for the end of a task failed")
    return 0


# The exchange: `Exchange` in `_serving/exchange.py`.

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


cdef bint admit(ExchangeState self, bint chained) except -1:
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
    if not start_exchange(self, chained):
        self._py_start()
    return True


cdef bint start_exchange(ExchangeState self, bint chained) except -1:
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
        <list?>(chain_contexts if chained else hub.context_tracker.contexts))[:]
    note = server.note
    if note is not None:
        try:
            note.request_id = self.request_id
            note.method, note.target = self.head.method, self.head.target
            note.running = 1
        except ValueError:
            rooms.note_request(note, self.request_id, self.head)
    if chained and hub is reading_hub and note is chain_note:
        hub.tasks.add(task)
        prepared_task = task
        return True
    start_task(hub, task, note)
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
    return plain_settings and not (<RequestTableState>server.table).needs


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
    """`Exchange._run`, without its handler of exceptions (`fail`)."""
    if serves_in_task(server.runner):
        serve(server.application, environ_of(self, server), self)
    else:
        server.runner(server.application, environ_of(self, server), self)
    return 0


cdef dict environ_of(ExchangeState self, ApplicationServerState server):
    """`Exchange._environ` and `environ_of`."""
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
    if template is None or head.line is not fields.line or head.line is None:
        put_line(self, server, head, environ)
        if template is not None and head.line is not None:
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
        admission._queue or table.observers or server.detached or is_waiting(channel)
        or server.times is not None or not server.keeps_alive
    ):
        return False
    ends += 1
    self.state = "ended"
    admission.running -= 1
    if server.metrics is not None:
        count_ended(self, server.metrics, (<GreenletHubState>server.hub).ended_at)
    if table.watcher is not None:
        watch_ended(self, table, (<GreenletHubState>server.hub).ended_at)
    table.exchanges.discard(self)
    h1 = channel._h1
    if (
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


# Requests: `H1Channel`, `RequestParser`, `KnownLines` and `request_head`.

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
    for slot in range(KEPT):
        Py_XDECREF(kept_fields[slot])
        kept_fields[slot], seen_fields[slot] = NULL, 0
    last_head_limits, last_lines = limits, lines
    return 0


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
# Field lines that are kept, and the hashes of those that were received last.
cdef enum:
    KEPT = 256
    KEPT_BYTES = 2048  # longer ones are not kept
cdef PyObject* kept_fields[KEPT]
cdef size_t seen_fields[KEPT]
cdef PyObject* seen_lines[SLOTS]
cdef PyObject* seen_values[SLOTS]


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


cdef object read_channel(H1ChannelState self, bint chained):
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
    if not feed(self, IN, got, chained):
        self._py_dataReceived(PyBytes_FromStringAndSize(IN, got))
    return None


cdef bint feed(
    H1ChannelState self, char* data, Py_ssize_t size, bint chained
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
    if not admit(exchange, chained):
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
    cdef Py_ssize_t before = -1, size = max(span.end - at, 0), rest = 0
    cdef char* behind = NULL
    cdef size_t number, slot
    cdef FieldLines fields
    if span.cookie is not NULL:
        before = span.cookie - at
        behind = span.cookie_end
        size = before
        rest = span.end - behind
        number = hash_of(at, before) * 31 + hash_of(behind, rest)
        size += rest
    else:
        number = hash_of(at, size)
    slot = number % KEPT
    if kept_fields[slot] is not NULL:
        fields = <FieldLines>kept_fields[slot]
        if fields.before == before and PyBytes_GET_SIZE(fields.lines) == size:
            if before < 0:
                if memcmp(PyBytes_AS_STRING(fields.lines), at, size) == 0:
                    return fields
            elif memcmp(PyBytes_AS_STRING(fields.lines), at, before) == 0 and (
                memcmp(PyBytes_AS_STRING(fields.lines) + before, behind, rest) == 0
            ):
                return fields
    fields = read_fields(at, span)
    if fields is None or size > KEPT_BYTES:
        return fields
    if seen_fields[slot] == number:  # the second time in a row
        fields.before, fields.kept = before, True
        if before < 0:
            fields.lines = PyBytes_FromStringAndSize(at, size)
        else:
            fields.lines = at[:before] + behind[:rest]
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


# Responses: `serve`, `StartResponse`, `ResponseHead`, `Exchange`, `H1Channel`,
# `Connection` and `SocketOutput`.

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
        or self.details is not None  # a record needs the lines of `encode`
        or not is_usual(self)
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


# The poller: `Sockets.doRead` in `_server/sockets.py`.

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
    if reading_hub is not None or type(self._epoll) is not EPOLL or len(postponed) > EVENTS:
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
        while read_next(self, hub, False):
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


cdef bint read_next(SocketsState self, GreenletHubState hub, bint chained) except -1:
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
        read_one(self, event.data.fd, chained)
    else:
        self._handle_events(event.data.fd, event.events)
    return True


cdef int read_one(SocketsState self, object fd, bint chained) except -1:
    """Read from a ready connection, unless an earlier event has closed it."""
    cdef PyObject* found = PyDict_GetItem(self._readers, fd)
    cdef object reader, transport, why
    if found is NULL:
        return 0
    reader = <object>found
    try:
        if type(reader) is rooms.H1Channel:
            transport = (<H1ChannelState>reader)._transport
            why = read_channel(<H1ChannelState>reader, chained)
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


# Connections: `Port.doRead` of Twisted, `_ListeningSocket`, `H1Channel`, `Sockets`.

# Whether a process that was forked from this one may have its connections open.
cdef bint forked = False


def note_fork(parent=True):
    """Note that a forked process may have the connections; not in the child itself."""
    global forked
    forked = parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=note_fork, after_in_child=lambda: note_fork(False))


# What `accept_ready` has begun. The checks of deadlines stop at its end.
cdef object accepting_port
cdef set accepted_connections
cdef H1ChannelState accepted = None  # its request is the next task of a chain
cdef int accepting_fd, accepted_count, accept_limit, accept_errno
cdef Py_ssize_t most_connections
cdef double accept_end


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
        or self._socket.family != AF_INET or not port.connected
        or "buildProtocol" in site.__dict__
    ):
        return False
    if model is None or model.server is not site.server:
        if site.settings.http2 != "off":
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
    accept_end = hub.share_slice(accept_limit)
    self._reserved = rooms.first_reserved()
    acceptor, reading_hub = self, hub
    try:
        while accept_next(self, hub, False):
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
        if not server.shutdown.connections:
            server._stop_if_idle()


cdef bint accept_next(
    ListeningSocketState self, GreenletHubState hub, bint chained
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
        connect(self, hub, fd, &peer, chained)
    return True


cdef int connect(
    ListeningSocketState self, GreenletHubState hub, int fd, sockaddr_in* peer,
    bint chained
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
    channel._time = now(hub.seconds)
    accepted_connections.add(channel)
    if len(accepted_connections) == 1 and server.deadlines.idle:
        server.connection_made(channel)
    try:
        # The request has usually arrived with the connection.
        why = read_channel(channel, chained)
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
        server._stop_if_idle()
    if server.shutdown.stopping:
        server.shutdown.complete_if_idle()
    return 0


# The methods that have a lane, by the name of the class.
LANES = {
    "Exchange": (ExchangeState, ("admit", "_start", "respond", "write")),
    "GreenletHub": (GreenletHubState, ("start", "_switch_to")),
    "H1Channel": (H1ChannelState, ("doRead", "dataReceived", "_close", "waiting")),
    "Input": (InputState, ("read",)),
    "RequestBody": (RequestBodyState, ("receive",)),
    "Sockets": (SocketsState, ("doRead",)),
    "StartResponse": (StartResponseState, ("__call__",)),
    "_ListeningSocket": (ListeningSocketState, ("accept_turn",)),
    "Task": (TaskState, ("__del__",)),
    "ThreadRunner": (ThreadRunnerState, ("run",)),
}
