# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, auto_pickle=False, annotation_typing=False, cdivision=True
# distutils: define_macros=_GNU_SOURCE=1
"""The compiled fast path: state classes, and lanes for the common case of a request.

A *state class* holds the attributes of a class of the server in C. The class itself is
Python and derives from it (`class Exchange(lanes.ExchangeState)`), so that every rule
is written once. A *lane* is the compiled twin of a method: it serves the common case,
and calls the Python method for any other, before it has changed anything. `with_lanes`
puts the lanes in the place of the methods, which remain as `_py_NAME`.

Read each lane beside the method of the same name; the included files have them by
subject. See `docs/decisions/0036-compiled-fast-path.md`. These files know the attributes
of the rooms above and must never import them: they hand over what a lane needs (`lend`).
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
    #include <sys/resource.h>
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
    /* `Context.run` refuses a context that is entered, such as the reactor greenlet's
       may be. So these do what greenlet does at a switch. */
    static inline PyObject *txg_context(void) {
        PyThreadState *state = PyThreadState_Get();
        if (state->context == NULL) {
            PyObject *copy = PyContext_CopyCurrent();  /* makes the current one */
            if (copy == NULL) return NULL;
            Py_DECREF(copy);
        }
        return state->context;
    }
    static inline PyObject *txg_swap_context(PyObject *context) {
        PyThreadState *state = PyThreadState_Get();
        PyObject *before = state->context;
        state->context = context;
        state->context_ver++;
        return before;
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
    struct rlimit:
        unsigned long long rlim_cur
    int getrlimit(int resource, rlimit* found)
    int RLIMIT_NOFILE
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
    PyObject* current_context "txg_context"() except NULL  # a borrowed reference
    # Steals the reference to the new context, and returns that to the previous one.
    PyObject* swap_context "txg_swap_context"(PyObject* context) noexcept
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
# The place of a request: on its own, the first that a loop reads, or after others.
cdef enum Chain:
    ALONE
    FIRST
    NEXT
cdef object EPOLL = getattr(select, "epoll", None), BUILTIN = type(len)
cdef long long heads, starts, serves, iterations, responses, blocks, ends, polls, reads
cdef long long accepts, chains, closes, templates


def counts():
    """Return how often each lane was taken so far, by name."""
    return {"accept": accepts, "block": blocks, "chain": chains, "close": closes,
            "end": ends, "head": heads, "iterate": iterations, "poll": polls,
            "read": reads, "response": responses, "serve": serves, "start": starts,
            "template": templates}


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
    cdef public object recorded, Ends, wildcards
    cdef public long long reserved_descriptors
    cdef public object end_child, log_failure, raised, finish_response, note_request
    cdef public object as_bytes, close_response, encode_field, RecordDetails
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

include "states.pxi"
include "tasks.pxi"
include "exchanges.pxi"
include "requests.pxi"
include "responses.pxi"
include "connections.pxi"

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
