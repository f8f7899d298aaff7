# Lanes of tasks: `_run_tasks` and `GreenletHub` in `_switching/greenlets.py`, `Task` in
# `_switching/tasks.py`. Only this file switches to a greenlet.

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
    cdef object failure = None
    try:
        call_function(task)
    except BaseException as error:
        failure = failure_of(task, error)
    if task._before_end is not None:
        failure = run_before_end(task) or failure
    if failure is None:
        task.state = "finished"
    else:
        task._fail(failure)
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


cdef object failure_of(TaskState task, object error):
    """Answer the error of a request; return the error with which the task fails."""
    cdef ExchangeState exchange = task.exchange
    if exchange is not None and exchange.runs_here and not exchange._propagates():
        try:
            exchange._failed(error)
            return None
        except BaseException as another:
            error = another
    else:
        error.__traceback__ = error.__traceback__.tb_next  # without `call_function`
    return error


cdef object run_before_end(TaskState task):
    """`Task._run_before_end`; return the error with which the task fails."""
    try:
        task._run_before_end()
    except BaseException as error:
        return error
    return None


cdef int start_task(
    GreenletHubState hub, TaskState task, object note, Chain chain
) except -1:
    """`GreenletHub.start` of a new task of an open hub."""
    global chain_note
    cdef bint begins_chain = (
        chain == FIRST and reading_hub is hub and chain_home is None
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
# a task parks, or the time slice is over. Only a request that a lane reads for the loop
# (`FIRST`) begins one: Python code that starts a task goes on when the task parks or
# ends, for example to send the frames of an HTTP/2 connection.
cdef GreenletHubState reading_hub = None  # while its connections are read or accepted
cdef SocketsState poller = None  # it has ready connections, and reads them now
cdef ListeningSocketState acceptor = None  # it accepts connections now
cdef object chain_home = None  # the reactor greenlet, which waits for the chain
cdef object chain_note = None  # of the server whose requests are in the chain
cdef object chain_contexts = None
cdef PyObject* chain_context  # the Context of `chain_home`, which keeps it
cdef double chain_resumed_at
cdef TaskState chained_task = None  # None while the chain reads
cdef TaskState prepared_task = None


cdef TaskState read_on(GreenletHubState hub, TaskState task):
    """End a task, read the ready connections until one has a request, return its task."""
    global chained_task
    cdef PyObject* context
    if rooms.running_loop() is not None or uses_hooks():
        return None  # `run_turn` restores the state of asyncio
    task._asyncio_state = chained_task = None
    PyDict_SetItem(rooms.running, "task", None)
    hub.context_tracker.contexts = chain_contexts
    Py_INCREF(<object>chain_context)
    context = swap_context(chain_context)
    try:
        return next_task(hub, task)
    finally:
        Py_XDECREF(swap_context(context))


cdef TaskState next_task(GreenletHubState hub, TaskState task):
    """The part of `read_on` that runs as in the reactor greenlet."""
    global chains, chained_task, prepared_task, chain_resumed_at
    cdef TaskState following
    cdef object greenlet = task.greenlet
    if chain_note is not None:
        chain_note.running = 0
    end_turn(hub, task, chain_resumed_at)
    while prepared_task is None and (
        accept_next(acceptor, hub, NEXT) if acceptor is not None
        else read_next(poller, hub, NEXT)
    ):
        pass
    hub.reactor_greenlet = chain_home
    following, prepared_task = prepared_task, None
    if following is not None:
        chains += 1
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
    global chain_home, chain_context, chain_contexts, chain_resumed_at, chained_task
    cdef double resumed_at
    cdef object log_contexts = hub.context_tracker.contexts
    cdef object asyncio_state = None
    cdef object previous = hub.reactor_greenlet
    cdef object interrupted = <object>PyDict_GetItem(rooms.running, "task")
    if rooms.running_loop() is not None or task._asyncio_state is not None:
        asyncio_state = rooms.swap_state(task._asyncio_state)
        begins_chain = False
    hub.reactor_greenlet = current_greenlet()
    begin_turn(hub, task)
    resumed_at = hub.resumed_at
    if begins_chain:
        chain_context = current_context()
        chain_home, chain_contexts = hub.reactor_greenlet, log_contexts
        chained_task, chain_resumed_at = task, resumed_at
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
